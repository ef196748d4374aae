"""Other people's ODE solvers on the probability-flow ODE."""

import pytest
import torch
from enumeration import smooth_grid
from models import DOUBLE, PROBLEM, VP

import sde_diffusion as sd


@pytest.mark.parametrize(
    ("solver", "method"),
    [("torchdiffeq", m) for m in ("dopri5", "dopri8", "bosh3", "adaptive_heun")]
    + [("scipy", m) for m in sd.adaptive.SCIPY_METHODS],
)
def test_black_boxes_reach_the_exact_endpoint(solver, method):
    x = PROBLEM.sample_marginal(8, *VP(0.9), torch.Generator().manual_seed(0))
    exact = PROBLEM.endpoint(x, VP, 0.9, 0.1)
    solve = sd.adaptive.ADAPTIVE[solver]
    errors = []
    for tolerance in (1e-4, 1e-7):
        solution = solve(PROBLEM.denoiser(VP), x, [0.9, 0.1], method, tolerance, tolerance)
        assert solution.nfe > 5
        errors.append(float((solution.x - exact).abs().max()))
    assert errors[1] < min(2e-5, errors[0] / 5)


def test_fixed_step_methods_of_torchdiffeq_are_our_runge_kutta():
    """Another implementation of the same method on the same grid: the same map."""
    grid = smooth_grid(VP, 8)
    x = PROBLEM.sample_marginal(4, *VP(float(grid[0])), torch.Generator().manual_seed(0))
    denoiser = PROBLEM.denoiser(VP)
    for theirs, ours in (("euler", "euler"), ("midpoint", "midpoint"), ("heun2", "heun")):
        solution = sd.adaptive.torchdiffeq(denoiser, x, grid, method=theirs)
        plan = sd.SOLVERS[ours](VP, grid)
        torch.testing.assert_close(solution.x, sd.run(plan, denoiser, x), rtol=1e-9, atol=1e-9)
        assert solution.nfe == plan.nfe


def test_black_boxes_count_calls_and_end_at_sigma_zero():
    calls = []

    def network(x, t):
        calls.append(1)
        return PROBLEM.denoised(x, *VP(float(t)))

    denoiser = sd.FunctionDenoiser(network, VP)
    x = torch.randn(4, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    for solve in (sd.adaptive.scipy, sd.adaptive.torchdiffeq):
        calls.clear()
        solution = solve(denoiser, x, [1.0, 0.0])
        assert solution.nfe == len(calls)
        before = solve(denoiser, x, [1.0, VP.t_clean]).x
        assert torch.equal(solution.x, PROBLEM.denoised(before, *VP(VP.t_clean)))


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_torchdiffeq_stays_on_a_table_whose_drift_vanishes_at_its_noisy_end(method):
    """There its guess of a first step is far longer than the whole of time."""
    schedule = sd.ddpm_linear()
    x = PROBLEM.sample_marginal(4, *schedule(1.0), torch.Generator().manual_seed(0))
    asked = []

    def network(x, t):
        asked.append(float(t))
        return PROBLEM.denoised(x, *schedule(float(t)))

    denoiser = sd.FunctionDenoiser(network, schedule)
    times = [1.0, schedule.t_clean]
    found = sd.adaptive.torchdiffeq(denoiser, x, times, method=method, rtol=1e-7, atol=1e-7)
    exact = PROBLEM.endpoint(x, schedule, *times)
    torch.testing.assert_close(found.x, exact, rtol=1e-5, atol=1e-5)
    assert schedule.t_clean <= min(asked) < max(asked) <= 1.0
