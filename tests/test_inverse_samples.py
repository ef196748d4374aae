"""Plans run with methods for inverse problems: the exact posterior's law on normal data."""

import math
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import pytest
import torch
from cases import each
from enumeration import every_solver, every_solver_with, smooth_grid

import sde_diffusion as sd
from sde_diffusion import inverse
from sde_diffusion.gradient import denoise_with_pull
from sde_diffusion.inverse import Matrix, Measurement, PhaseRetrieval

F64 = torch.float64
SCHEDULE = sd.VPLinear()
DIM = 3
EXACT = partial(inverse.mmps, iterations=4)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def problem():
    root = normal(DIM, DIM, seed=3)
    covariance = 0.3 * root @ root.T + 0.05 * torch.eye(DIM, dtype=F64)
    prior = sd.problems.GaussianMixture([1.0], normal(1, DIM), covariance[None])
    return prior, Measurement(Matrix(normal(2, DIM, seed=1)), normal(2, seed=2), 0.3)


class Basis(sd.Noise):
    """Sample 0 draws zeros; each of the others one unit vector in one draw and zeros otherwise."""

    def start(self, out):
        raise NotImplementedError

    def stream(self, like, course):
        made = [0]

        def draw(out, t, s):
            out.zero_()
            first = 1 + DIM * (1 + made[0])
            out[first : first + DIM] = torch.eye(DIM, dtype=F64)
            made[0] += 1
            return out

        return draw


def law_of(plan, denoiser, mean, covariance):
    """Mean and covariance of the result from x_T ~ N(mean, covariance); affine in x_T and noise."""
    n = 1 + DIM * (1 + len(plan.noises))
    x = mean.expand(n, DIM).clone()
    x[1 : 1 + DIM] += torch.linalg.cholesky(covariance).T
    out = sd.run(plan, denoiser, x, noise=Basis())
    map_ = out[1:] - out[0]
    return out[0], map_.T @ map_


def error_of(solver, steps, method, **options):
    prior, measurement = problem()
    posterior = measurement.posterior(prior)
    mean, covariance = posterior.mean.flatten(), posterior.data_covariance()
    times = smooth_grid(SCHEDULE, steps)

    def noised(t):
        alpha, sigma = SCHEDULE(float(t))
        return alpha * mean, alpha**2 * covariance + sigma**2 * torch.eye(DIM, dtype=F64)

    plan = sd.SOLVERS[solver](SCHEDULE, times, **options)
    found = law_of(plan, method(prior.denoiser(SCHEDULE), measurement), *noised(times[0]))
    return max(float((a - b).abs().max()) for a, b in zip(found, noised(times[-1]), strict=True))


@pytest.mark.parametrize(
    ("solver", "order", "options"),
    [
        ("ddim", 1, {}),
        ("heun", 2, {}),
        ("dpm_solver_pp_2m", 2, {}),
        ("dpm_solver_3", 3, {}),
        ("ddpm", 1, {}),
        ("ddim", 1, {"eta": 0.7}),
        ("euler_maruyama", 1, {}),
    ],
)
def test_mmps_converges_to_the_posterior_at_the_order_of_the_solver(solver, order, options):
    errors = [error_of(solver, n, EXACT, **options) for n in (16, 32, 64)]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes[-1] > order - 0.25
    assert errors[-1] < 0.05


def test_a_wrong_covariance_converges_to_another_law():
    """So that the above can fail: with one variance for all directions the error stays."""
    errors = [error_of("heun", n, inverse.pigdm) for n in (16, 32)]
    assert min(errors) > 0.01


@each(
    ("solver", "options", "name"),
    every_solver_with([*inverse.METHODS], ["ddim", "heun", "sa_solver", "restart"]),
)
def test_every_plan_runs_every_method_sample_by_sample(solver, options, name):
    """A sample's path depends on its own state, noise and measurement, whatever its batch.

    Every plan with one method in turn; a plan of each kind with all of them.
    """
    prior, measurement = problem()
    measurement = Measurement.simulate(measurement.operator, prior.sample(3), 0.3)
    plan = sd.SOLVERS[solver](SCHEDULE, smooth_grid(SCHEDULE, 4), **options)
    x, alone = normal(3, DIM, seed=7), torch.tensor([1])
    posterior = inverse.METHODS[name](prior.denoiser(SCHEDULE), measurement)
    together = sd.run(plan, posterior, x, noise=[4, 5, 6])
    single = sd.run(plan, posterior.select(alone), x[alone], noise=[5])
    torch.testing.assert_close(together[alone], single, rtol=1e-6, atol=1e-6)


def test_methods_differ():
    """Of the seven, on normal data and a linear measurement, more than four."""
    prior, measurement = problem()
    methods = [method(prior.denoiser(SCHEDULE), measurement) for method in inverse.METHODS.values()]
    found = {float(method(normal(3, DIM, seed=7), 0.5).sum()) for method in methods}
    assert len(found) > 4


@each(("solver", "options"), every_solver())
def test_mmps_is_the_exact_denoiser_in_every_plan(solver, options):
    prior, measurement = problem()
    exact = measurement.posterior(prior).denoiser(SCHEDULE)
    found = EXACT(prior.denoiser(SCHEDULE), measurement)
    plan, x = sd.SOLVERS[solver](SCHEDULE, smooth_grid(SCHEDULE, 5), **options), normal(4, DIM)
    a, b = (sd.run(plan, d, x, noise=[1, 2, 3, 4]) for d in (found, exact))
    torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_dps_by_steps_is_the_algorithm_of_the_paper():
    """Ancestral steps, and after each zeta grad |y - A(d)| subtracted; a nonlinear A."""
    prior, zeta = sd.problems.spectrum_mixture(3, 9).shaped(3, 3), 0.4
    measurement = Measurement.simulate(PhaseRetrieval((3, 3)), prior.sample(1)[0], 0.2)
    times, denoiser = sd.times.uniform(SCHEDULE, 6), prior.denoiser(SCHEDULE)
    plan = sd.SOLVERS["ddim"](SCHEDULE, times, eta=1.0)
    start, draws = normal(4, 3, 3, seed=1), [normal(4, 3, 3, seed=10 + i) for i in range(6)]

    class Given(sd.Noise):
        start = None

        def stream(self, like, course):
            rest = iter(draws)
            return lambda out, t, s: out.copy_(next(rest))

    found = sd.run(
        plan, inverse.dps(denoiser, measurement, zeta=zeta, times=times), start, noise=Given()
    )
    x, rest = start, iter(draws)
    for t, s in pairwise(times.tolist()):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = SCHEDULE(t), SCHEDULE(s)
        leaf = x.clone().requires_grad_()
        d = denoiser(leaf, t)
        length = measurement.residual(d).flatten(1).norm(dim=1)
        (slope,) = torch.autograd.grad(length.sum(), leaf)
        d, ratio = d.detach(), alpha_t / alpha_s
        x = ratio * sigma_s**2 / sigma_t**2 * x
        x = x + alpha_s * (1 - (ratio * sigma_s / sigma_t) ** 2) * d - zeta * slope
        if sigma_s:
            variance = sigma_s**2 * (1 - (ratio * sigma_s / sigma_t) ** 2)
            x = x + math.sqrt(variance) * next(rest)
    torch.testing.assert_close(found, x, rtol=1e-8, atol=1e-8)


def test_the_push_of_a_step_is_of_the_grid_that_was_given_and_no_other():
    prior, measurement = problem()
    times, x = [0.9, 0.6, 0.2, 0.0], normal(2, DIM)
    d = prior.denoiser(SCHEDULE)
    posterior = inverse.dps(d, measurement, zeta=1.0, times=times)
    weight = lambda t: float((posterior(x, t) - d(x, t)).norm() / _pull_norm(d, measurement, x, t))
    assert weight(0.6) != pytest.approx(weight(0.9))
    assert weight(float(torch.tensor(0.6))) == pytest.approx(weight(0.6))  # in float32
    together = posterior(x, torch.tensor([0.9, 0.6], dtype=F64))
    torch.testing.assert_close(together[1:], posterior(x, 0.6)[1:])
    for t in (0.95, 0.3, 0.0):
        with pytest.raises(ValueError, match="begins no step of the 3") if t else nullcontext():
            posterior(x, t)
    finer = sd.solvers.ddim(SCHEDULE, [0.9, 0.75, 0.6, 0.2, 0.0], eta=1.0)
    with pytest.raises(ValueError, match=r"t = 0.75 begins.*times=plan.times"):
        sd.run(finer, posterior, x, noise=0)
    given = inverse.dps(d, measurement, zeta=1.0, times=finer.times)  # the cure
    assert sd.run(finer, given, x, noise=0).isfinite().all()


def _pull_norm(d, measurement, x, t):
    """|J^T g/|y - A d|| of the samples together."""
    mean, pull = denoise_with_pull(d, x, t)
    residual = measurement.residual(mean)
    return pull(measurement.operator.adjoint(residual / residual.norm(dim=1, keepdim=True))).norm()
