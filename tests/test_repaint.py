"""RePaint: its walk as a table, algorithm 1 by hand, and what its jumps are good for."""

import math
from itertools import pairwise

import pytest
import torch
from enumeration import SCHEDULES, smooth_grid
from probing import UnitNoise, law_of

import sde_diffusion as sd
from sde_diffusion.editing import inpaint
from sde_diffusion.solvers import ddim, ddpm, repaint

DOUBLE = torch.float64
EDM, VP = sd.EDM(), sd.VPLinear()


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("base", ["ddim", "ddpm", "heun"])
def test_without_jumps_it_is_the_base(schedule, base):
    grid = smooth_grid(schedule, 6)
    plan = repaint(schedule, grid, jump_length=2, jump_count=0, base=base)
    assert plan.equals(sd.SOLVERS[base](schedule, grid))
    assert not repaint(schedule, grid, jump_length=2, jump_count=1, base=base).equals(plan)


def walk(steps, jump_length, jump_count):
    """The published schedule of jumps: grid indices of the states, counted from the noisy end."""
    left = dict.fromkeys(range(0, steps - jump_length, jump_length), jump_count)
    k, visited = steps - 1, [steps - 1]  # k is counted from the last point before the clean end
    while k > 0:
        k -= 1
        visited.append(k)
        if left.get(k, 0) > 0:
            left[k] -= 1
            k += jump_length
            visited.append(k)
    if left.get(0, 0):
        raise AssertionError
    return [steps - 1 - k for k in visited]


@pytest.mark.parametrize(
    ("steps", "jump_length", "jump_count"),
    [(10, 1, 1), (10, 3, 2), (12, 5, 4), (7, 6, 1), (1, 1, 3)],
)
def test_it_walks_as_published(steps, jump_length, jump_count):
    """Where the network is asked: at every state of the walk but those that are jumped from."""
    grid = smooth_grid(VP, steps).tolist()
    plan = repaint(VP, grid, jump_length, jump_count, base="ddim")
    visited = walk(steps, jump_length, jump_count)
    jumped = [b < a for a, b in zip(visited, [*visited[1:], steps], strict=True)]
    asked = [grid[i] for i, gone in zip(visited, jumped, strict=True) if not gone]
    assert list(plan.asked_at) == asked
    assert plan.nfe == steps + jump_length * jump_count * ((steps - 1) // jump_length)
    assert list(plan.times) == grid
    assert len(plan.noises) == sum(jumped)


@pytest.mark.parametrize(("jump_length", "last"), [(1, 6), (2, 6), (6, 6), (4, 6)])
def test_from_the_end_it_comes_down_to_the_clean_end_again(jump_length, last):
    grid, count = smooth_grid(VP, last), 3
    plan = repaint(VP, grid, jump_length, count, base="ddim", from_end=True)
    assert plan.nfe == last + jump_length * count * (last // jump_length)
    again = grid[last - jump_length : last].tolist()
    assert list(plan.asked_at)[-jump_length * count :] == again * count
    assert list(plan.times) == grid.tolist()
    x = torch.ones(1, dtype=torch.float64)
    law = plan.law(VP, 0.3 * x, 0.5 * x)  # of nothing known it samples as before
    without = sd.SOLVERS["ddim"](VP, grid).law(VP, 0.3 * x, 0.5 * x)
    torch.testing.assert_close(law, without, rtol=0.05, atol=0.05)


def test_it_is_algorithm_1_by_hand():
    """The paper's loop, which mixes states by the mask: the same law of the result, exactly."""
    grid = smooth_grid(VP, 5, -3.0, 1.5).tolist()
    mask, y, jumps, batch = torch.tensor([1, 0]), torch.tensor([0.8, 0.0], dtype=DOUBLE), 2, 200
    denoiser = sd.problems.Gaussian([0.2, -0.1], [[1.0, 0.6], [0.6, 0.5]]).denoiser(VP)
    noise = UnitNoise(batch)
    draw = lambda: noise.unit(torch.empty(batch, 2, dtype=DOUBLE))

    x = VP.sigma(grid[0]) * draw()
    alpha_t, sigma_t = VP(grid[0])
    x = torch.where(mask == 1, alpha_t * y + sigma_t * draw(), x)
    for i, (t, s) in enumerate(pairwise(grid)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = VP(t), VP(s)
        for u in range(jumps + 1):
            known = alpha_s * y + sigma_s * draw()
            gain = 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2
            mean = (sigma_s / sigma_t) ** 2 * alpha_t / alpha_s * x
            mean = mean + alpha_s * gain * denoiser(x, t)
            unknown = mean + sigma_t * math.sqrt(gain) * draw()
            x_s = torch.where(mask == 1, known, unknown)
            if u == jumps or i == 4:
                break
            scale, deviation = VP.transition(s, t)
            x = scale * x_s + deviation * draw()
        x = x_s
    by_hand = law_of(x)

    plan = repaint(VP, grid, 1, jumps)
    picture = y.expand(batch, 2)
    ours = law_of(
        inpaint(denoiser, picture, mask, solver=plan, noise="independent", seed=UnitNoise(batch))
    )
    torch.testing.assert_close(ours, by_hand, rtol=1e-10, atol=1e-12)
    fixed = law_of(inpaint(denoiser, picture, mask, solver=plan, seed=UnitNoise(batch)))
    assert abs(float(fixed[1][1, 1] / by_hand[1][1, 1]) - 1) > 0.01  # one z is another method


@pytest.mark.parametrize("r", [0.5, 0.9])
def test_the_more_jumps_the_nearer_to_the_conditional_law(r):
    """Exact W2 distance of the unknown coordinate to N(r y, 1 - r^2): each time a third less."""
    denoiser = sd.problems.Gaussian([0.0, 0.0], [[1.0, r], [r, 1.0]]).denoiser(EDM)
    grid, y = sd.times.default(EDM, 30), 1.3
    misses = []
    for jumps in (0, 2, 8, 20):
        draws = 5 + 2 * 30 * (jumps + 1) * 2
        picture = torch.tensor([y, 0.0], dtype=DOUBLE).expand(1 + 2 * draws, 2)
        plan = repaint(EDM, grid, 1, jumps, base="ddim")
        give = {"solver": plan, "noise": "independent", "seed": UnitNoise(len(picture))}
        mean, covariance = law_of(inpaint(denoiser, picture, torch.tensor([1, 0]), **give))
        deviation = math.sqrt(float(covariance[1, 1]))
        misses.append(math.hypot(float(mean[1]) - r * y, deviation - math.sqrt(1 - r**2)))
    for few, more in pairwise(misses):
        assert more < 0.65 * few
    assert misses[-1] < 0.07


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: repaint(VP, g, 6), "jump_length = 6 on a grid of 6 steps"),
        (lambda g: repaint(VP, g, 7, from_end=True), "jump_length = 7 on a grid of 6 steps"),
        (lambda g: repaint(VP, g, 0), "at least 1"),
        (lambda g: repaint(VP, g, 1, -1), "at least 0"),
        (lambda g: repaint(VP, g, 1.5), "must be an integer"),
        (lambda g: repaint(VP, g, base="ddmp"), "did you mean 'ddpm'"),
        (lambda g: repaint(VP, g, jumps=3), "unknown option"),
    ],
)
def test_bad_input_is_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call(smooth_grid(VP, 6))


def test_other_variances_by_a_base_of_ones_own():
    grid = smooth_grid(VP, 4)
    own = repaint(VP, grid, base=lambda s, t: ddpm(s, t, variance="posterior"))
    assert own.equals(repaint(VP, grid, base=lambda s, t: ddim(s, t, eta=1.0)))
