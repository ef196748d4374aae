"""Exponential Runge-Kutta methods: phi functions, order conditions, order over wide ranges."""

import math

import numpy as np
import pytest
import torch
from enumeration import SCHEDULES, smooth_grid
from scipy.integrate import quad

import sde_diffusion as sd
from sde_diffusion.problems import GaussianMixture
from sde_diffusion.scalar import phi
from sde_diffusion.solvers import ddim, dpm_solver_3, hochbruck_ostermann, krogstad, res_2s, res_3s

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
METHODS = {"res_2s": (res_2s, 1), "res_3s": (res_3s, 1)}
METHODS |= {"krogstad": (krogstad, 2), "hochbruck_ostermann": (hochbruck_ostermann, 2)}


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("z", [-30.0, -1.0000001, -0.9999999, -1e-3, 0.0, 1e-9, 0.5, 1.0, 8.0])
def test_phi_is_its_integral_and_so_is_its_gradient(k, z):
    def kernel(u, power):
        return u**power * math.exp((1 - u) * z) * u ** (k - 1) / math.factorial(k - 1)

    value, slope = quad(kernel, 0, 1, 0)[0], quad(lambda u: (1 - u) * kernel(u, 0), 0, 1)[0]
    assert phi(k, z) == pytest.approx(value, rel=1e-12)
    at = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    result = phi(k, at)
    assert result.item() == pytest.approx(value, rel=1e-12)
    assert float(torch.autograd.grad(result, at)[0]) == pytest.approx(slope, rel=1e-9)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("schedule", [sd.VPLinear(), sd.FlowMatching()], ids=repr)
@pytest.mark.parametrize("name", METHODS)
def test_output_polynomial_in_lambda_is_integrated_exactly(name, schedule, prediction):
    """At h = 3, far from h -> 0: the weights meet sum b_i c_i^k = k! phi_{k+1} as such."""
    method, degree = METHODS[name]
    grid = [schedule.time_of(v) for v in (-1.5, 1.5)]
    plan = method(schedule, grid, prediction=prediction)
    sign = -1 if prediction == "data" else 1

    def n(l):  # noqa: E741
        return (0.4 - 0.7 * l + 0.3 * l**2) if degree == 2 else 0.4 - 0.7 * l

    def denoised(x, t):
        alpha_t, sigma_t = schedule(t)
        out = n(schedule.half_log_snr(t))
        return torch.full_like(x, out) if sign < 0 else (x - sigma_t * out) / alpha_t

    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(grid[0]), schedule(grid[1])
    integral = quad(lambda l: math.exp(sign * (1.5 - l)) * -sign * n(l), -1.5, 1.5)[0]  # noqa: E741
    x = torch.full((1, 1), 0.9, dtype=torch.float64)
    if sign < 0:
        exact = sigma_s / sigma_t * 0.9 + alpha_s * integral
    else:
        exact = alpha_s / alpha_t * 0.9 + sigma_s * integral
    assert float(sd.run(plan, denoised, x)) == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("name", METHODS)
def test_order_holds_from_almost_pure_noise_to_almost_clean(name, prediction):
    """lambda from -4 to 4, h up to 0.4: the order of `Claim` up to 0.35 below it."""
    method, schedule = METHODS[name][0], sd.VPLinear()
    order = sd.CLAIMS[name][0].order
    errors, steps = [], [20, 40, 80]
    for n in steps:
        grid = smooth_grid(schedule, n, -4.0, 4.0)
        t, s = float(grid[0]), float(grid[-1])
        x = MIXTURE.sample_marginal(64, *schedule(t), torch.Generator().manual_seed(0))
        y = sd.run(method(schedule, grid, prediction=prediction), MIXTURE.denoiser(schedule), x)
        exact = MIXTURE.endpoint(x, schedule, t, s)
        errors.append(float((y - exact).square().mean().sqrt()))
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] > order - 0.35, errors


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_res_3s_with_thirds_is_dpm_solver_3(schedule):
    """r1 = 1/3, r2 = 2/3, where gamma = 0; other nodes are another method."""
    grid = smooth_grid(schedule, 3)
    ours = res_3s(schedule, grid, prediction="noise", c2=1 / 3, c3=2 / 3)
    assert ours.equals(dpm_solver_3(schedule, grid), 1e-8)
    assert not ours.equals(res_3s(schedule, grid, prediction="noise"), 1e-3)


@pytest.mark.parametrize("method", [res_2s, res_3s, krogstad, hochbruck_ostermann])
def test_ends_of_infinite_h_are_ddim_steps(method):
    schedule = sd.FlowMatching()
    assert method(schedule, [1.0, 0.0]).equals(ddim(schedule, [1.0, 0.0]))
    plan = method(schedule, [1.0, 0.6, 0.3, 0.0])
    assert plan.rows[-1].x == {}
    assert list(plan.rows[-1].d.values()) == [1.0]
    with pytest.raises(ValueError, match="alpha = 0"):
        method(schedule, [1.0, 0.5], prediction="noise")


def test_gradients_reach_the_times():
    schedule = sd.VPLinear()
    times = smooth_grid(schedule, 3).requires_grad_()
    (slope,) = torch.autograd.grad(res_3s(schedule, times).matrix()[-1].sum(), times)
    for i in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[i] = 1e-6
        low, high = (
            res_3s(schedule, times.detach() + k * step).matrix()[-1].sum() for k in (-1, 1)
        )
        assert float(slope[i]) == pytest.approx(float(high - low) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"c2": 0.0}, "inside the step"),
        ({"c2": 0.5, "c3": 0.5}, "different nodes"),
        ({"c2": 2 / 3, "c3": 1.0}, "not 2/3"),
        ({"prediction": "velocity"}, "unknown prediction"),
    ],
)
def test_bad_nodes_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        res_3s(sd.VPLinear(), [0.8, 0.4], **options)
