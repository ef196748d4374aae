"""UniPC and SA-Solver: rows as the papers print them, what they equal, what their steps cost."""

import math

import numpy as np
import pytest
import torch
from cases import each
from enumeration import SCHEDULES, smooth_grid

import sde_diffusion as sd
from sde_diffusion.problems import GaussianMixture
from sde_diffusion.solvers import (
    adams,
    ddim,
    dpm_solver_2m,
    dpm_solver_pp_2m,
    dpm_solver_pp_3m,
    sa_solver,
    sde_dpm_solver_pp_1,
    sde_dpm_solver_pp_2m,
    sde_dpm_solver_pp_3m,
    unipc,
)

all_schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def uneven_grid(schedule, steps=7):
    return sd.times.karras(schedule, steps, *(schedule.time_of(v) for v in (-2.0, 2.0)))


@all_schedules
def test_predictors_alone_are_known_samplers(schedule):
    grid = uneven_grid(schedule)

    def unip(**options):
        return unipc(schedule, grid, corrector=False, **options)

    assert unip(order=1).equals(ddim(schedule, grid))
    assert unip(order=2).equals(dpm_solver_pp_2m(schedule, grid))
    assert unip(order=2, prediction="noise").equals(dpm_solver_2m(schedule, grid))
    assert unip(order=2, variant="vary_coeff").equals(adams(schedule, grid, 2))
    assert unip(order=3, variant="vary_coeff").equals(dpm_solver_pp_3m(schedule, grid))
    assert not unip(order=2, variant="bh1").equals(unip(order=2))

    def sap(predictor, tau, **options):
        return sa_solver(schedule, grid, predictor, 0, tau, **options)

    assert sap(1, 0.0).equals(ddim(schedule, grid))
    assert sap(3, 0.0).equals(adams(schedule, grid, 3))
    assert sap(3, 0.7).equals(adams(schedule, grid, 3, tau=0.7))
    assert sap(1, 1.0).equals(sde_dpm_solver_pp_1(schedule, grid))
    assert sap(2, 1.0).equals(sde_dpm_solver_pp_2m(schedule, grid, solver_type="heun"))
    assert sap(3, 1.0).equals(sde_dpm_solver_pp_3m(schedule, grid))
    assert not sap(2, 1.0, variant="bh1").equals(sap(2, 1.0))


@all_schedules
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_unipc_is_sa_solver_without_noise(schedule, prediction):
    """UniPC-p corrects through p + 1 outputs; its bh1 is the authors' row of SA-Solver."""
    grid = uneven_grid(schedule)
    options = {"prediction": prediction}
    for p in (1, 2, 3, 4):
        for mode in ("pec", "pece"):
            exact = unipc(schedule, grid, p, "vary_coeff", mode=mode, **options)
            assert exact.equals(sa_solver(schedule, grid, p, p + 1, 0.0, mode=mode, **options))
        simple = unipc(schedule, grid, p, "bh1", **options)
        assert simple.equals(sa_solver(schedule, grid, p, p + 1, 0.0, variant="bh1", **options))


@all_schedules
@each("prediction", ["data", "noise"])
@each("variant", ["bh1", "bh2"])
@each("order", [1, 2, 3])
def test_unipc_rows_as_printed(schedule, prediction, variant, order):
    """R(h) a B(h) = phi(h), solved as in section 3; a = 1/2 where it has one unknown."""
    grid = uneven_grid(schedule, order + 1).tolist()
    plan = unipc(schedule, grid, order, variant, prediction)
    values = np.random.default_rng(0).normal(size=2 + order)
    outputs = values[:-1][::-1]  # of the network, latest first; the last value is x_t
    at = [schedule.half_log_snr(t) for t in grid]
    corrected = [i for i, row in enumerate(plan.rows) if row.kind == "store"][-1]
    # Predictor: from the last corrected state to the end, through the last `order` outputs.
    predicted = printed_step(
        schedule, grid[-2], grid[-1], values[-1], outputs[0],
        [(at[-2 - m], outputs[m]) for m in range(1, order)], variant, prediction,
    )  # fmt: skip
    row = plan.rows[-1]
    assert corrected in row.x
    got = apply(plan, row, schedule, values[-1], outputs[::-1], prediction, corrected)
    assert got == pytest.approx(predicted, rel=1e-8)


def printed_step(schedule, t, s, x, now, others, variant, prediction):
    """The step of the paper from x and the output `now` at t through (lambda, output) pairs."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    lambda_t = schedule.half_log_snr(t)
    h = schedule.half_log_snr(s) - lambda_t
    hh = -h if prediction == "data" else h
    size = hh if variant == "bh1" else math.expm1(hh)
    scale = alpha_s if prediction == "data" else sigma_s
    base = (sigma_s / sigma_t if prediction == "data" else alpha_s / alpha_t) * x
    result = base - scale * math.expm1(hh) * now
    if not others:
        return result
    r = np.array([(place - lambda_t) / h for place, _ in others])
    differences = np.array([value - now for _, value in others]) / r
    b, phi = [], math.expm1(hh) / hh - 1
    for i in range(1, len(r) + 1):
        b.append(phi * math.factorial(i) / size)
        phi = phi / hh - 1 / math.factorial(i + 1)
    a = np.linalg.solve([r**i for i in range(len(r))], b) if len(r) > 1 else np.array([0.5])
    return result - scale * size * float(a @ differences)


def apply(plan, row, schedule, x, outputs, prediction, corrected):
    """A row on given outputs of each call; states enter by `x` (the corrected one), or as eps."""
    states, total = {corrected: x}, 0.0
    asked = [i for i, r in enumerate(plan.rows) if r.asks]
    if prediction == "noise":  # d = (x - sigma eps)/alpha at the state that was asked
        rng = np.random.default_rng(1)
        states |= {i: rng.normal() for i in asked}
    for i, c in row.x.items():
        total += c * states[i]
    for j, c in row.d.items():
        alpha, sigma = schedule(plan.asked_at[j])
        data = prediction == "data"
        total += c * (outputs[j] if data else (states[asked[j]] - sigma * outputs[j]) / alpha)
    return total


@all_schedules
def test_corrected_state_as_printed(schedule):
    """UniC-2 through the new output, the last and the one before; and UniC-1 with a = 1/2."""
    grid = uneven_grid(schedule, 3).tolist()
    at = [schedule.half_log_snr(t) for t in grid]
    values = np.random.default_rng(0).normal(size=3)
    for variant in ("bh1", "bh2"):
        plan = unipc(schedule, grid, 2, variant)
        first, second = (row for row in plan.rows if row.kind == "store" and row.x)
        others = [(at[1], values[1])]
        want = printed_step(schedule, grid[0], grid[1], 0.3, values[0], others, variant, "data")
        got = first.x[0] * 0.3 + sum(c * values[j] for j, c in first.d.items())
        assert got == pytest.approx(want, rel=1e-9)
        others = [(at[2], values[2]), (at[0], values[0])]
        want = printed_step(schedule, grid[1], grid[2], 0.3, values[1], others, variant, "data")
        (c,) = second.x.values()
        got = c * 0.3 + sum(c * values[j] for j, c in second.d.items())
        assert got == pytest.approx(want, rel=1e-8)


def test_a_corrector_costs_no_call_and_one_draw_serves_both():
    schedule = sd.VPLinear()
    grid = smooth_grid(schedule, 6)
    assert unipc(schedule, grid, 3).nfe == adams(schedule, grid, 3).nfe == 6
    assert unipc(schedule, grid, 3, mode="pece").nfe == 6 + 5
    plan = sa_solver(schedule, grid, 3, 3)
    assert plan.nfe == len(plan.noises) == 6
    stores = [row for row in plan.rows if row.kind == "store"]
    predicted = [row for row in plan.rows if row.kind == "denoise"][1:]
    assert len(stores) == len(predicted) == 5
    for guess, kept in zip(predicted, stores, strict=True):
        assert guess.z == kept.z
        assert len(guess.z) == 1
        assert guess.t == kept.t


@pytest.mark.parametrize("schedule", [sd.VPLinear(), sd.EDM(), sd.FlowMatching()], ids=repr)
@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary_coeff"])
@pytest.mark.parametrize("steps", [3, 4, 9, 16])
def test_last_step_to_zero_noise_gives_the_last_d(schedule, variant, steps):
    """No NaN with a zero last sigma, at any number of steps; the last step has no corrector."""
    grid = sd.times.uniform(schedule, steps, t_start=0.9 * schedule.t_max)
    for plan in (unipc(schedule, grid, 3, variant), sa_solver(schedule, grid, 3, 3)):
        last = plan.matrix()[-1]
        expected = torch.zeros_like(last)
        expected[plan.nfe] = schedule.alpha(float(grid[-1]))
        torch.testing.assert_close(last, expected, rtol=0, atol=1e-12)
    plan = unipc(schedule, grid, 3, variant, prediction="noise")  # eps is of the predicted state
    end, alpha_t = plan.rows[-1], schedule.alpha(plan.asked_at[-1])
    assert end.d == pytest.approx({plan.nfe - 1: schedule.alpha(float(grid[-1]))})
    assert sum(end.x.values()) == pytest.approx(0.0, abs=1e-9 / alpha_t)


def test_from_pure_noise_the_first_step_is_not_corrected():
    schedule = sd.FlowMatching()
    for plan in (unipc(schedule, [1.0, 0.7, 0.4, 0.1]), sa_solver(schedule, [1.0, 0.7, 0.4, 0.1])):
        assert [row.t for row in plan.rows if row.kind == "store" and row.terms()] == [0.4]
        assert torch.isfinite(plan.matrix()).all()
    with pytest.raises(ValueError, match="alpha = 0"):
        unipc(schedule, [1.0, 0.7, 0.4, 0.1], prediction="noise")


def test_a_low_start_caps_the_order_at_three_and_a_full_one_does_not():
    """From lambda = 0, where the output bends at once; the default start costs h^3."""
    schedule, data = sd.VPLinear(), GaussianMixture([0.3, 0.7], [[-1.0], [0.8]], [0.09, 0.25])
    t, s = schedule.time_of(0.0), schedule.time_of(2.0)
    x = data.sample_marginal(32, *schedule(t), torch.Generator().manual_seed(0))
    exact = data.endpoint(x, schedule, t, s)
    for start, order, expected in [("lower", 3, 3), ("full", 3, 4), ("full", 4, 5)]:
        errors = []
        for steps in (40, 80):
            grid = sd.times.uniform_lambda(schedule, steps, t, s)
            y = sd.run(unipc(schedule, grid, order, first_steps=start), data.denoiser(schedule), x)
            errors.append(float((y - exact).square().mean().sqrt()))
        assert math.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.25)


def test_three_outputs_have_weak_order_two():
    """At tau = 1 the variance errs by h^2 from any start; at tau = 0 the order is 3."""
    schedule, orders = sd.VPLinear(), {}
    for tau in (0.0, 1.0):
        errors = []
        for steps in (320, 640):
            grid = smooth_grid(schedule, steps, -4.5, 0.5)  # a start that counts for nothing
            plan = sa_solver(schedule, grid, 3, 0, tau)
            _, variance = plan.law(schedule, 0.0, 0.5)
            alpha_s, sigma_s = schedule(plan.times[-1])
            errors.append(abs(float(variance) / (alpha_s**2 * 0.5 + sigma_s**2) - 1))
        orders[tau] = math.log2(errors[0] / errors[1])
    assert orders[1.0] == pytest.approx(2, abs=0.3)  # 2.4, 2.2, ... as steps are doubled
    assert orders[0.0] > 2.9


@all_schedules
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_simplified_row_of_sa_solver(schedule, tau):
    """(1 + tau^2) h^2/2 stands for the integral of the slope, in units of alpha_s."""
    grid = uneven_grid(schedule, 2).tolist()
    at = [schedule.half_log_snr(t) for t in grid]
    h, k, alpha_s = at[2] - at[1], 1 + tau**2, schedule.alpha(grid[2])
    slope = alpha_s * k * h**2 / 2 / (at[1] - at[0])
    row = sa_solver(schedule, grid, 2, 0, tau, variant="bh1").rows[-1]
    assert row.d == pytest.approx({1: -alpha_s * math.expm1(-k * h) + slope, 0: -slope}, rel=1e-9)


def test_tau_may_vary():
    """A function of t, or a range of sigma/alpha as in the paper; outside it steps draw nothing."""
    schedule = sd.VPLinear()
    grid = smooth_grid(schedule, 8)
    plan = sa_solver(schedule, grid, tau=0.8, tau_range=(0.3, 2.0))
    inside = [0.3 <= schedule.rho(t) <= 2.0 for t in grid.tolist()[:-1]]
    assert 0 < sum(inside) < 8
    assert [t for t, _ in plan.noises] == [t for t, i in zip(grid.tolist(), inside) if i]  # noqa: B905
    by_time = sa_solver(schedule, grid, tau=lambda t: 0.8 * (0.3 <= schedule.rho(t) <= 2.0))
    assert plan.equals(by_time)
    assert sa_solver(schedule, grid, tau=lambda t: 0.5).equals(sa_solver(schedule, grid, tau=0.5))
    never = sa_solver(schedule, grid, tau_range=(100.0, 200.0))
    assert never.equals(sa_solver(schedule, grid, tau=0.0))


def test_lower_last_lowers_predictor_and_corrector():
    schedule = sd.VPLinear()
    plan = unipc(schedule, smooth_grid(schedule, 6), 3, lower_last=True)
    assert [len(r.d) for r in plan.rows if r.kind in ("denoise", "end")] == [0, 1, 2, 3, 3, 2, 1]
    assert [len(r.d) for r in plan.rows if r.kind == "store" and r.terms()] == [2, 3, 4, 4, 3]


def test_gradients_reach_the_times():
    schedule = sd.VPLinear()
    step = 1e-6 * torch.tensor([0.0, 1.0, -1.0, 0.5, 1.0, 0.0], dtype=torch.float64)
    grid = smooth_grid(schedule, 5)
    for make in (unipc, lambda s, g: unipc(s, g, 3, first_steps="full"), sa_solver):

        def value(times, make=make):
            return make(schedule, times).law(schedule, 0.3, 0.2)[1]

        times = grid.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(times), times)
        quotient = (value(grid + step) - value(grid - step)) / 2
        assert float(gradient @ step) == pytest.approx(float(quotient), rel=1e-4, abs=1e-13)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s, g: unipc(s, g, 4), "needs at least 4 steps"),
        (lambda s, g: unipc(s, g, 0), "from 1 to 8"),
        (lambda s, g: unipc(s, g, True), "must be an integer"),
        (lambda s, g: unipc(s, g, variant="bh3"), "did you mean 'bh"),
        (lambda s, g: unipc(s, g, prediction="velocity"), "Known: data, noise"),
        (lambda s, g: unipc(s, g, mode="pce"), "did you mean 'pec"),
        (lambda s, g: unipc(s, g, corrector=False, mode="pece"), "needs corrector=True"),
        (lambda s, g: sa_solver(s, g, 4), "predictor = 4 needs at least 4 steps"),
        (lambda s, g: sa_solver(s, g, corrector=-1), "corrector = -1"),
        (lambda s, g: sa_solver(s, g, corrector=0, mode="pece"), "needs corrector >= 1"),
        (lambda s, g: sa_solver(s, g, tau=-0.5), "at least 0"),
        (lambda s, g: sa_solver(s, g, tau=lambda t: math.nan), "at least 0"),
        (lambda s, g: sa_solver(s, g, tau_range=(1.0, 0.5)), "low < high"),
        (lambda s, g: sa_solver(s, g, 3, first_steps="full"), "noise limits the start"),
    ],
)
def test_bad_options_are_refused(call, words):
    schedule = sd.VPLinear()
    with pytest.raises((ValueError, TypeError), match=words):
        call(schedule, smooth_grid(schedule, 3))
