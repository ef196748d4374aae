"""Runs of particles: reproducible, each population by its own seed, and what a result tells."""

import pytest
import torch
from particle_problems import (
    DENOISER,
    MATRIX,
    MEASUREMENT,
    NOISE,
    SCHEDULE,
    Y,
    assert_mean,
    grid,
    plan_of,
)

import sde_diffusion as sd
from sde_diffusion.inverse import Matrix, Measurement
from sde_diffusion.particles import POTENTIALS, Population, effective_sample_size, steer, twisted

PLAN = plan_of("sde_dpm_solver_pp_2m", 6)


def find(shape=(3, 20, 3), **options):
    options = {"seed": 0, "dtype": torch.float64, "threshold": 0.9, **options}
    return twisted(PLAN, DENOISER, MEASUREMENT, shape, **options)


def assert_same(a, b):
    torch.testing.assert_close(a.x, b.x)
    torch.testing.assert_close(a.log_weights, b.log_weights)
    torch.testing.assert_close(a.log_evidence, b.log_evidence)


def test_a_population_depends_on_its_own_seed_alone():
    three, again, two = find(), find(), find((2, 20, 3))
    assert_same(three, again)
    torch.testing.assert_close(three.x[:2], two.x)
    torch.testing.assert_close(three.log_evidence[:2], two.log_evidence)
    chosen = find((2, 20, 3), seed=[7, 8])
    swapped = find((2, 20, 3), seed=[8, 7])
    torch.testing.assert_close(chosen.x, swapped.x.flip(0))
    assert not torch.equal(chosen.x[0], chosen.x[1])


@pytest.mark.parametrize("batch", [1, 7, 60, 1000])
def test_parts_of_a_batch_make_no_difference(batch):
    assert_same(find(), find(batch=batch))


def test_measurements_and_conditions_follow_their_population_in_parts():
    """Populations of other y and other class each find what they find alone."""
    means = torch.tensor([[0.5, -0.2, 0.1], [-0.5, 0.4, 0.0]], dtype=torch.float64)

    def network(x, t, which):
        alpha, sigma = (c[:, None] for c in SCHEDULE(t.double()))
        mean = means[which]
        return mean + alpha * (x - alpha * mean) / (alpha**2 + sigma**2)

    denoiser = sd.NetworkDenoiser(network, SCHEDULE, "data")
    y = torch.stack([Y, -Y])
    options = {"dtype": torch.float64, "batch": 9}
    both = twisted(
        PLAN,
        denoiser.given(torch.tensor([0, 1])),
        Measurement(Matrix(MATRIX), y, NOISE),
        (2, 20, 3),
        seed=[3, 4],
        **options,
    )
    for g in (0, 1):
        alone = twisted(
            PLAN,
            denoiser.given(torch.tensor([g])),
            Measurement(Matrix(MATRIX), y[g], NOISE),
            (1, 20, 3),
            seed=[3 + g],
            **options,
        )
        torch.testing.assert_close(both.x[g], alone.x[0])
        torch.testing.assert_close(both.log_evidence[g], alone.log_evidence[0])


def test_without_reward_the_particles_are_the_plans_own_samples():
    """A constant reward: equal weights, evidence exp(constant), and x what `run` gives."""
    shape = (2, 5, 3)
    found = steer(
        PLAN,
        DENOISER,
        lambda x: x.new_full((len(x),), 0.7),
        shape,
        seed=[1, 2],
        dtype=torch.float64,
    )
    torch.testing.assert_close(found.log_evidence, torch.full((2,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(found.log_weights.exp(), torch.full((2, 5), 0.2).double())
    noise = sd.PerSampleNoise([1, 2])
    x = noise.start(torch.empty(shape, dtype=torch.float64)) * float(SCHEDULE.sigma(1.0))
    flat = lambda x, t: DENOISER(x.flatten(0, 1), t).reshape(shape)
    torch.testing.assert_close(found.x, sd.run(PLAN, flat, x, noise=noise))


def test_a_given_start_is_where_particles_begin():
    """What the start itself draws is what is taken in its place."""
    start = sd.PerSampleNoise([4, 5]).start(torch.empty(2, 20, 3, dtype=torch.float64))
    start = start * float(SCHEDULE.sigma(1.0))
    assert_same(find((2, 20, 3), seed=[4, 5], start=start), find((2, 20, 3), seed=[4, 5]))
    other = find((2, 20, 3), seed=[4, 5], start=start.flip(1))
    assert not torch.equal(other.x, find((2, 20, 3), seed=[4, 5]).x)


def test_what_a_result_tells():
    found = find()
    assert found.times.shape == (7,)
    assert found.ess.shape == (7, 3)
    assert found.ancestors.shape == (7, 3, 20)
    torch.testing.assert_close(found.log_weights.exp().sum(1), torch.ones(3).double())
    torch.testing.assert_close(found.ess[-1], effective_sample_size(found.log_weights))
    low = found.ess[:-1] < 0.9 * 20
    resampled = (found.ancestors[:-1] != torch.arange(20)).any(-1)
    torch.testing.assert_close(low, resampled)
    mean = (found.log_weights.exp()[..., None] * found.x).sum(1)
    torch.testing.assert_close(found.expect(), mean)
    torch.testing.assert_close(found.expect(lambda x: x[:, 0] ** 2).shape, torch.Size([3]))
    likelihood = MEASUREMENT.log_likelihood(found.x.flatten(0, 1)).reshape(3, 20)
    torch.testing.assert_close(found.values[..., -1], likelihood)
    assert bool(((found.lineages >= 1) & (found.lineages < 20)).all())
    assert find(threshold=0.0).lineages.tolist() == [20] * 3
    drawn = found.draw(1000, seed=0)
    assert drawn.shape == (3, 1000, 3)
    # Systematic: each particle within one copy of its share.
    copies = (drawn[:, :, None] == found.x[:, None]).all(-1).sum(1)
    assert bool(((copies - 1000 * found.log_weights.exp()).abs() < 1 + 1e-9).all())
    torch.testing.assert_close(drawn, found.draw(1000, seed=0))


def test_particles_are_weighed_where_it_is_asked():
    """A reward asked at two grid points only: weighed there and at the end."""
    asked = []

    def reward(x):
        asked.append(len(x))
        return x[:, 0]

    found = steer(PLAN, DENOISER, reward, (1, 8, 3), at=[2, 4], seed=0, batch=3)
    torch.testing.assert_close(found.times, torch.stack([grid(6)[i] for i in (2, 4, 6)]))
    assert asked == [3, 3, 2] * 3
    again = steer(PLAN, DENOISER, reward, (1, 8, 3), at=torch.tensor([4, 2]), seed=0)
    assert_same(found, again)


def test_a_population_is_resampled_below_the_threshold_and_not_at_it():
    """One weighing before the end; with 8 particles, 8 threshold is exact in binary."""
    few = lambda threshold: steer(
        *(PLAN, DENOISER, lambda x: 3 * x[:, 0], (1, 8, 3)), at=[4], seed=1, threshold=threshold
    )
    ess = few(0.0).ess[0, 0] / 8
    stay = torch.arange(8)
    assert torch.equal(few(float(ess)).ancestors[0, 0], stay)
    above = float(torch.nextafter(ess, torch.ones_like(ess)))
    assert not torch.equal(few(above).ancestors[0, 0], stay)


def test_draws_are_in_random_order():
    """Every place of a draw has the mean of the population: false alarms below 1e-4."""
    groups, k = 400, 8
    equal = torch.zeros(groups, k, dtype=torch.float64).log_softmax(1)
    x = torch.arange(k).double().expand(groups, k)
    none = torch.empty(0)
    drawn = Population(x, equal, equal[:, 0], none, none, none, none).draw(k, seed=0)
    assert_mean(drawn, (k - 1) / 2)


def test_values_are_those_of_each_particles_own_past():
    """Rewards as they were asked, followed back through the ancestors."""
    asked = []

    def reward(x):
        asked.append(x[:, 0] + 2 * x[:, 1])
        return asked[-1]

    found = steer(PLAN, DENOISER, reward, (2, 9, 3), seed=0, threshold=1.0, dtype=torch.float64)
    who = torch.arange(9).expand(2, 9)
    for point in reversed(range(7)):
        who = found.ancestors[point].gather(1, who)
        own = asked[point].reshape(2, 9).gather(1, who)
        torch.testing.assert_close(found.values[..., point], own)


def test_potentials_are_the_products_of_the_papers():
    rewards = torch.tensor([[1.0, 3.0, 2.0], [-1.0, -2.0, 0.5]])
    expected = {
        "difference": [2.0, 0.5],
        "max": [1 + 3 + 3.0, -1 - 1 + 0.5],
        "sum": [1 + 4 + 6.0, -1 - 3 - 2.5],
    }
    for name, potential in POTENTIALS.items():
        torch.testing.assert_close(potential(rewards), torch.tensor(expected[name]))
