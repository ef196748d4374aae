"""A variance that the network tells: sampling with it, its bound, its training."""

import math

import pytest
import torch
from enumeration import smooth_grid

import sde_diffusion as sd
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.reverse import reverse_step, reverse_steps
from sde_diffusion.solvers import ddim, ddpm
from sde_diffusion.training import Batch, DiffusionObjective, LearnedVarianceObjective
from sde_diffusion.training.random import generator_at

DOUBLE = torch.float64
VP = sd.VPLinear()
C = 0.4  # variance of the data


class Exact(torch.nn.Module):
    """The exact noise of N(0, C) data times `scale`, and a variance of its own for each time."""

    outputs = 2

    def __init__(self, times, v=0.0, scale=1.0):
        super().__init__()
        self.times = [float(t) for t in times]
        self.v = torch.nn.Parameter(torch.full((len(self.times),), v, dtype=DOUBLE))
        self.scale = torch.nn.Parameter(torch.tensor(scale, dtype=DOUBLE))

    def forward(self, x, t):
        alpha_t, sigma_t = VP(t.reshape(-1, *[1] * (x.ndim - 1)))
        noise = self.scale * sigma_t * x / (alpha_t**2 * C + sigma_t**2)
        nearest = (t[:, None] - torch.tensor(self.times, dtype=DOUBLE)).abs().argmin(1)
        return torch.cat([noise, self.v[nearest].reshape(alpha_t.shape).expand_as(x)], 1)


def denoiser_at(v, times):
    return sd.NetworkDenoiser(Exact(times, v), VP)


@pytest.mark.parametrize("to_zero", [False, True])
@pytest.mark.parametrize(("v", "variance"), [(-1.0, "posterior"), (1.0, "beta")])
def test_at_its_ends_it_is_ddpm(v, variance, to_zero):
    grid = [*smooth_grid(VP, 4).tolist(), *([0.0] if to_zero else [])]
    denoiser = denoiser_at(v, grid)
    x = torch.randn(6, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    learned = sd.learned_variance(denoiser, x, grid, noise=3)
    plan = ddpm(VP, grid, variance=variance)
    torch.testing.assert_close(learned.x, sd.run(plan, denoiser, x, noise=3))
    assert learned.nfe == plan.nfe


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_no_more_than_the_posterior_is_ddim(eta):
    grid = smooth_grid(VP, 4).tolist()
    denoiser = denoiser_at(-1.0, grid)
    x = torch.randn(6, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    learned = sd.learned_variance(denoiser, x, grid, eta=eta, noise=3).x
    if eta == 0:  # a variance of nothing is nothing but rounding
        of_plan = sd.run(ddim(VP, grid), denoiser, x)
        torch.testing.assert_close(learned, of_plan, rtol=0, atol=1e-6)
    else:
        of_plan = sd.run(ddim(VP, grid, eta=eta), denoiser, x, noise=3)
        torch.testing.assert_close(learned, of_plan, rtol=0, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_steps_with_the_right_variance_keep_gaussian_data(eta):
    """v told so that Sigma = betatilde + c_d^2 Var[x_0 | x]: every eta, five steps.

    The variance of 40,000 numbers is within 4.5 standard errors in all but 10^-5 of seeds.
    """
    grid = smooth_grid(VP, 5).tolist()
    network = Exact(grid)
    with torch.no_grad():
        for i, step in enumerate(reverse_steps(VP, grid)[:-1]):
            alpha_t, sigma_t = VP(step.t)
            spread = C * sigma_t**2 / (alpha_t**2 * C + sigma_t**2)
            log_v = math.log(step.posterior + step.on_d**2 * spread)
            lower, upper = math.log(step.posterior), math.log(step.beta)
            network.v[i] = 2 * (log_v - lower) / (upper - lower) - 1
    alpha, sigma = VP(grid[0])
    x = torch.randn(20000, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    x = x * math.sqrt(alpha**2 * C + sigma**2)
    end = sd.learned_variance(sd.NetworkDenoiser(network, VP), x, grid, eta=eta, noise=1).x
    alpha, sigma = VP(grid[-1])
    true = alpha**2 * C + sigma**2
    assert abs(float(end.var()) / true - 1) < 4.5 * math.sqrt(2 / end.numel())


def test_every_solver_takes_the_mean():
    """A network with two outputs is a denoiser like any other, and is sampled by its name."""
    grid = sd.times.uniform(VP, 5)
    both = denoiser_at(0.3, grid)

    def mean_only(x, t):
        return both.network(x, t)[:, : x.shape[1]]

    one = sd.NetworkDenoiser(mean_only, VP)
    for solver in ("ddim", "dpm_solver_pp_2m"):
        samples = [sd.sample(d, (4, 3), solver=solver, steps=5, seed=0) for d in (both, one)]
        torch.testing.assert_close(*samples)
    x = torch.randn(4, 3, dtype=DOUBLE)
    torch.testing.assert_close(both(x, 0.3), one(x, 0.3))
    output, v, a, b = both.with_variance(x, torch.tensor(0.3, dtype=DOUBLE))
    torch.testing.assert_close(a * x + b * output, one(x, 0.3))
    torch.testing.assert_close(v, torch.full_like(x, 0.3))
    assert sd.sample(both, (4, 3), solver="learned_variance", steps=5, seed=0).shape == (4, 3)


def test_the_bound_teaches_the_variance_alone():
    """The gradient on the mean is that of the plain loss; the variance has one too."""
    grid = smooth_grid(VP, 6).tolist()
    batch = Batch(torch.randn(64, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)))
    gradients = []
    for weight in (0.0, 10.0):
        network = Exact(grid, scale=0.7)
        objective = LearnedVarianceObjective(sd.NetworkDenoiser(network, VP), grid, weight=weight)
        losses = objective(batch, generator_at(0, 1))
        losses.loss.mean().backward()
        gradients.append((network.scale.grad.clone(), network.v.grad.abs().sum()))
        assert losses.loss.shape == losses.lambda_.shape == losses.error.shape == (64,)
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    assert gradients[0][1] == 0
    assert gradients[1][1] > 0


def test_its_bound_is_the_bound():
    """weight * N L_k on average over k is the discrete bound, without its prior, in bits."""
    grid = smooth_grid(VP, 3).tolist()
    denoiser = denoiser_at(0.2, grid)
    x_0 = torch.randn(3000, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * C**0.5
    with_bound = LearnedVarianceObjective(denoiser, grid, weight=1.0)
    without = LearnedVarianceObjective(denoiser, grid, weight=0.0)
    values = []
    for step in range(30):
        losses = [o(Batch(x_0), generator_at(0, step)).loss for o in (with_bound, without)]
        values.append((losses[0] - losses[1]).detach())
    bound = sd.discrete_bound(denoiser, x_0, grid, variance="learned", draws=30)
    bits = (bound.nats - bound.prior) / (2 * math.log(2))
    mine = torch.cat(values)
    # Independent draws for each of the 90,000: 4.5 standard errors, 1 of 10^5 seeds.
    own = float(mine.std()) / math.sqrt(len(mine))
    assert abs(float(mine.mean()) - bits) < 4.5 * own + 4.5 * bound.standard_error / (
        2 * math.log(2)
    )


def test_training_finds_the_best_variance():
    """On Gaussian data with the exact mean: log Sigma of each step to that of Analytic-DPM."""
    grid = smooth_grid(VP, 3).tolist()
    network = Exact(grid)
    objective = LearnedVarianceObjective(sd.NetworkDenoiser(network, VP), grid, weight=1.0)
    optimizer = torch.optim.Adam([network.v], lr=0.05)
    x_0 = torch.randn(4096, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * C**0.5
    for step in range(150):
        optimizer.zero_grad()
        objective(Batch(x_0), generator_at(0, step)).loss.mean().backward()
        optimizer.step()
    for i, step in enumerate(reverse_steps(VP, grid)[:-1]):
        alpha_t, sigma_t = VP(step.t)
        spread = C * sigma_t**2 / (alpha_t**2 * C + sigma_t**2)
        lower, upper = math.log(step.posterior), math.log(step.beta)
        found = lower + (float(network.v[i].detach()) + 1) / 2 * (upper - lower)
        assert found == pytest.approx(math.log(step.posterior + step.on_d**2 * spread), abs=0.05)


def test_the_plain_part_is_the_plain_loss():
    """The same error in the unit of all objectives, on a network of the library."""
    network = ResidualMLP((2,), width=16, depth=1, outputs=2)
    denoiser = sd.NetworkDenoiser(network, VP)
    objective = LearnedVarianceObjective(denoiser, weight=0.0)
    assert objective.describe()["weight"] == 0.0
    x_0 = torch.randn(5, 2)
    losses = objective(Batch(x_0), generator_at(0, 0))
    torch.testing.assert_close(losses.loss.detach(), losses.error.to(losses.loss))
    with pytest.raises(ValueError, match=r"outputs=2.*LearnedVarianceObjective\(denoiser\)"):
        DiffusionObjective(denoiser)


def test_the_error_is_told_in_units_of_the_noise():
    """|eps - eps_hat|^2/D of a network that predicts the velocity, at the noises it was shown."""
    network = ResidualMLP((2,), width=16, depth=1, outputs=2).double()
    denoiser = sd.NetworkDenoiser(network, VP, prediction="velocity")
    objective = LearnedVarianceObjective(denoiser, smooth_grid(VP, 5))
    x_0 = torch.randn(7, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    losses, generator = objective(Batch(x_0), generator_at(0, 0)), generator_at(0, 0)
    t = objective.times[torch.randint(len(objective.times), (7,), generator=generator)]
    eps = torch.randn(x_0.shape, generator=generator).double()
    alpha_t, sigma_t = (c[:, None] for c in VP(t))
    eps_hat = denoiser.noise(alpha_t * x_0 + sigma_t * eps, t)
    torch.testing.assert_close(losses.error, (eps - eps_hat).square().mean(1).detach())


def test_eta_of_a_step():
    """c_x, c_d and v_0 are the coefficients of DDIM's plan, at every eta."""
    for eta in (0.0, 0.3, 1.0):
        plan = ddim(VP, [0.8, 0.3], eta=eta)
        step, row = reverse_step(VP, 0.8, 0.3, eta), plan.rows[-1]
        assert step.on_x == pytest.approx(row.x[0])
        assert step.on_d == pytest.approx(row.d[0])
        assert step.posterior == pytest.approx(row.z.get(0, 0.0) ** 2)


def test_refused():
    grid = [0.8, 0.3]
    x = torch.zeros(2, 3)
    one = sd.NetworkDenoiser(lambda x, t: x, VP)
    with pytest.raises(TypeError, match="outputs=2"):
        sd.learned_variance(one, x, grid)
    with pytest.raises(TypeError, match="outputs=2"):
        sd.sample(one, (2, 3), solver="learned_variance", steps=2)
    with pytest.raises(TypeError, match="tells no variance"):
        one.with_variance(x, torch.tensor(0.3))
    with pytest.raises(TypeError, match="two outputs"):
        LearnedVarianceObjective(one)
    with pytest.raises(ValueError, match="outputs = 3 must be 1, or 2"):
        sd.NetworkDenoiser(lambda x, t: x, VP, outputs=3)
    with pytest.raises(ValueError, match="it must return twice the channels"):
        sd.NetworkDenoiser(lambda x, t: x, VP, outputs=2)(x, 0.3)
    with pytest.raises(ValueError, match="it must return twice the channels"):
        sd.NetworkDenoiser(lambda x, t: x, VP, outputs=2)(x[:, 0], 0.3)
    both = denoiser_at(0.0, grid)
    with pytest.raises(ValueError, match="eta = -1"):
        sd.learned_variance(both, x, grid, eta=-1.0)
    with pytest.raises(ValueError, match="weight = -1"):
        LearnedVarianceObjective(both, weight=-1.0)
