"""The DPM-Solver family: its rows as the papers print them, and what they equal."""

import math

import numpy as np
import pytest
import torch
from cases import each
from enumeration import SCHEDULES, smooth_grid

import sde_diffusion as sd
from sde_diffusion.solvers import (
    adams,
    ddim,
    dpm_solver_2,
    dpm_solver_2m,
    dpm_solver_3,
    dpm_solver_3m,
    dpm_solver_pp_2m,
    dpm_solver_pp_2s,
    dpm_solver_pp_3m,
    dpm_solver_pp_3s,
    sde_dpm_solver_1,
    sde_dpm_solver_2m,
    sde_dpm_solver_pp_1,
    sde_dpm_solver_pp_2m,
    sde_dpm_solver_pp_2s,
    sde_dpm_solver_pp_3m,
)

FAMILY = [name for name in sd.SOLVERS if "dpm_solver" in name]
all_schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def uneven_grid(schedule, steps=7):
    return sd.times.karras(schedule, steps, *(schedule.time_of(v) for v in (-2.0, 2.0)))


@all_schedules
def test_what_the_family_equals(schedule):
    """Exact integrals are Adams methods; the order-1 members are DDIM; eta = 0 is the ODE."""
    grid = uneven_grid(schedule)
    assert dpm_solver_pp_2m(schedule, grid, solver_type="heun").equals(adams(schedule, grid, 2))
    assert dpm_solver_pp_3m(schedule, grid).equals(adams(schedule, grid, 3))
    assert dpm_solver_3m(schedule, grid).equals(adams(schedule, grid, 3, "noise"))
    assert sde_dpm_solver_pp_1(schedule, grid).equals(ddim(schedule, grid, eta=1.0))
    assert sde_dpm_solver_pp_1(schedule, grid, eta=0.0).equals(ddim(schedule, grid))
    assert sde_dpm_solver_1(schedule, grid, eta=0.0).equals(ddim(schedule, grid))
    assert sde_dpm_solver_pp_2m(schedule, grid, eta=0.0).equals(dpm_solver_pp_2m(schedule, grid))
    assert sde_dpm_solver_2m(schedule, grid, eta=0.0).equals(dpm_solver_2m(schedule, grid))
    assert sde_dpm_solver_pp_3m(schedule, grid, eta=0.0).equals(dpm_solver_pp_3m(schedule, grid))
    assert sde_dpm_solver_pp_2s(schedule, grid, eta=0.0).equals(dpm_solver_pp_2s(schedule, grid))
    stochastic = sde_dpm_solver_pp_3m(schedule, grid, eta=0.49)
    assert stochastic.equals(adams(schedule, grid, 3, tau=0.7))
    assert not sde_dpm_solver_1(schedule, grid).equals(ddim(schedule, grid, eta=1.0))
    assert not dpm_solver_pp_2m(schedule, grid).equals(adams(schedule, grid, 2))
    assert not dpm_solver_pp_3m(schedule, grid, difference="shipped").equals(adams(schedule, grid))


@all_schedules
def test_3m_rows_as_printed(schedule):
    """The phi-functions of the papers and of k-diffusion, on uneven steps."""
    grid = uneven_grid(schedule, 3).tolist()
    at = [schedule.half_log_snr(t) for t in grid]
    h, r0, r1 = (at[3] - at[2]), (at[2] - at[1]) / (at[3] - at[2]), None
    r1 = (at[1] - at[0]) / h
    d0, d1, d2 = np.eye(3)[::-1]  # the latest output first, over (d_0, d_1, d_2)
    a, b = (d0 - d1) / r0, (d1 - d2) / r1
    first, second = a + r0 / (r0 + r1) * (a - b), (a - b) / (r0 + r1)
    alpha_s, sigma_s = schedule(grid[3])
    for eta, factor in [(0.0, 2.0), (0.0, 1.0), (0.6, 1.0), (1.0, 2.0)]:
        k = (1 + eta) * h
        phi_2 = 1 + math.expm1(-k) / k
        phi_3 = 0.5 - phi_2 / k
        row = alpha_s * (-math.expm1(-k) * d0 + phi_2 * first + factor * phi_3 * second)
        difference = "corrected" if factor == 2 else "shipped"
        plan = sde_dpm_solver_pp_3m(schedule, grid, eta, difference)
        assert np.allclose([plan.rows[-1].d[j] for j in range(3)], row, rtol=1e-9, atol=0)
        noise = sigma_s * math.sqrt(-math.expm1(-2 * eta * h))
        assert sum(plan.rows[-1].z.values()) == pytest.approx(noise, rel=1e-12)
    phi_2 = math.expm1(h) / h - 1
    phi_3 = phi_2 / h - 0.5
    for factor, difference in [(2, "corrected"), (1, "shipped")]:
        row = -sigma_s * (math.expm1(h) * d0 + phi_2 * first + factor * phi_3 * second)
        plan = dpm_solver_3m(schedule, grid, difference)
        d = [plan.rows[-1].d[j] for j in range(3)]
        alphas = [schedule.alpha(t) / schedule.sigma(t) for t in grid[:3]]
        assert np.allclose(
            d, -np.array(alphas) * row, rtol=1e-9, atol=0
        )  # eps = (x - alpha d)/sigma


@all_schedules
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_single_step_rows_as_printed(schedule, prediction):
    """The unrolled map of one step against the papers' formulas, any r1 and r2."""
    t, s = (schedule.time_of(v) for v in (-0.7, 0.9))
    h, r1, r2 = 1.6, 0.4, 0.75
    places = [(schedule.alpha(u), schedule.sigma(u)) for u in (t, s)]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = places
    x, outputs = np.eye(4)[0], np.eye(4)[1:]  # over (x_t, output_0, output_1, output_2)
    if prediction == "data":
        base, gain = sigma_s / sigma_t * x, alpha_s * -math.expm1(-h)
        slope = alpha_s * (1 + math.expm1(-h) / h)
        second, third = dpm_solver_pp_2s, dpm_solver_pp_3s
    else:
        base, gain = alpha_s / alpha_t * x, -sigma_s * math.expm1(h)
        slope = -sigma_s * (math.expm1(h) / h - 1)
        second, third = dpm_solver_2, dpm_solver_3
    jump = (outputs[1] - outputs[0]) / r1
    expected = base + gain * outputs[0] + gain / 2 * jump
    check_one_step(second(schedule, [t, s], r1), schedule, prediction, expected)
    expected = base + gain * outputs[0] + slope * jump
    check_one_step(second(schedule, [t, s], r1, "heun"), schedule, prediction, expected)
    expected = base + gain * outputs[0] + slope / r2 * (outputs[2] - outputs[0])
    check_one_step(third(schedule, [t, s], r1, r2), schedule, prediction, expected)


def check_one_step(plan, schedule, prediction, expected):
    """Give each stage its own output and compare what comes out, for random outputs."""
    values = np.random.default_rng(0).normal(size=4)
    asked = iter(values[1:])

    def denoised(x, t):
        value = next(asked)
        alpha_t, sigma_t = schedule(float(t))
        return (
            torch.full_like(x, value) if prediction == "data" else (x - sigma_t * value) / alpha_t
        )

    y = sd.run(plan, denoised, torch.full((1, 1), values[0], dtype=torch.float64))
    assert float(y) == pytest.approx(float(expected @ values), rel=1e-9)


@each("name", FAMILY)
@each("schedule", [sd.VPLinear(), sd.EDM(), sd.FlowMatching()])
@each("steps", [1, 2, 3, 6])
def test_last_step_to_zero_noise_gives_the_last_d(name, schedule, steps):
    """sigma = 0: x = alpha d exactly, no noise, at every number of steps."""
    grid = sd.times.uniform(schedule, steps, t_start=0.9 * schedule.t_max)
    assert schedule.sigma(float(grid[-1])) == 0
    plan = sd.SOLVERS[name](schedule, grid)
    last = plan.matrix()[-1]
    expected = torch.zeros_like(last)
    expected[plan.nfe] = schedule.alpha(float(grid[-1]))
    torch.testing.assert_close(last, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in FAMILY if "_pp_" in name])
def test_data_prediction_starts_from_pure_noise(name):
    """alpha = 0: the step has h = inf, and takes one call and order 1."""
    plan = sd.SOLVERS[name](sd.FlowMatching(), [1.0, 0.7, 0.4, 0.1])
    assert torch.isfinite(plan.matrix()).all()
    first = plan.rows[1]
    assert first.kind == "denoise"
    assert first.d == pytest.approx({0: 0.3})


@pytest.mark.parametrize("name", [n for n in FAMILY if "_pp_" not in n and n[-1] != "1"])
def test_noise_prediction_refuses_pure_noise(name):
    with pytest.raises(ValueError, match="alpha = 0"):
        sd.SOLVERS[name](sd.FlowMatching(), [1.0, 0.7, 0.4, 0.1])


@all_schedules
@pytest.mark.parametrize("eta", [0.3, 1.0, 2.0])
def test_noises_of_a_2s_step_come_from_one_path(schedule, eta):
    """On disjoint intervals; their sum has the variance of the whole step, whatever r1."""
    for r1 in (0.2, 0.5, 0.9):
        plan = sde_dpm_solver_pp_2s(schedule, smooth_grid(schedule, 2), eta, r1)
        (t, u), (v, s), _, _ = plan.noises
        assert t > u == v > s
        h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
        variance = schedule.sigma(s) ** 2 * -math.expm1(-2 * eta * h)
        drawn = sum(c**2 for c in plan.rows[2].z.values())
        assert drawn == pytest.approx(variance, rel=1e-9)


def test_independent_noises_would_lower_the_weak_order_of_2s_to_one():
    """The shared part of the noises is what order 2 hangs on."""
    import dataclasses

    schedule, errors = sd.VPLinear(), []
    for steps in (40, 80):
        plan = sde_dpm_solver_pp_2s(schedule, smooth_grid(schedule, steps))
        rows, draws = list(plan.rows), [plan.noises[0]]
        for i, row in enumerate(rows):
            fresh = {}
            for c in row.z.values():  # a draw of its own for every coefficient
                fresh[len(draws) - 1] = c
                draws.append(plan.noises[0])
            rows[i] = dataclasses.replace(row, z=fresh)
        broken = dataclasses.replace(plan, rows=tuple(rows), noises=tuple(draws[:-1]))
        alpha_s, sigma_s = schedule(plan.times[-1])
        laws = [
            p.law(schedule, 0.7, 1.0)[1] / (alpha_s**2 + sigma_s**2) - 1 for p in (plan, broken)
        ]
        errors.append([abs(float(e)) for e in laws])
    order, broken_order = np.log2(np.array(errors[0]) / np.array(errors[1]))
    assert order > 1.9
    assert broken_order < 1.1


@pytest.mark.parametrize("solver", [dpm_solver_pp_3m, dpm_solver_3m, sde_dpm_solver_pp_3m])
def test_lower_last_ends_with_orders_two_and_one(solver):
    schedule = sd.VPLinear()
    plan = solver(schedule, smooth_grid(schedule, 6), lower_last=True)
    outputs = [len(row.d) for row in plan.rows[1:]]
    assert outputs == [1, 2, 3, 3, 2, 1]
    plan = solver(schedule, smooth_grid(schedule, 6))
    assert [len(row.d) for row in plan.rows[1:]] == [1, 2, 3, 3, 3, 3]


def test_gradients_reach_the_times():
    schedule = sd.VPLinear()
    for name in FAMILY:
        grid = smooth_grid(schedule, 5)
        step = 1e-6 * torch.tensor([0.0, 1.0, -1.0, 0.5, 1.0, 0.0], dtype=torch.float64)

        def value(times, name=name):
            return sd.SOLVERS[name](schedule, times).law(schedule, 0.3, 0.2)[1]

        times = grid.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(times), times)
        quotient = (value(grid + step) - value(grid - step)) / 2
        assert float(gradient @ step) == pytest.approx(float(quotient), rel=1e-4, abs=1e-13)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: dpm_solver_2(s, [0.8, 0.5], r1=0.0), "0 < r1 <= 1"),
        (lambda s: dpm_solver_3(s, [0.8, 0.5], r2=1.2), "0 < r2 <= 1"),
        (lambda s: sde_dpm_solver_pp_2s(s, [0.8, 0.5], r1=1.0), "0 < r1 < 1"),
        (lambda s: dpm_solver_pp_2m(s, [0.8, 0.5], solver_type="hein"), "did you mean 'heun'"),
        (lambda s: dpm_solver_pp_3m(s, [0.8, 0.5], difference="ship"), "did you mean 'shipped'"),
        (lambda s: sde_dpm_solver_pp_2m(s, [0.8, 0.5], eta=-0.1), "at least 0"),
        (lambda s: sde_dpm_solver_1(s, [0.8, 0.5], eta=math.nan), "eta = nan must be a finite"),
    ],
)
def test_bad_options_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(sd.VPLinear())
