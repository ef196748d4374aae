"""Every solver, found by enumeration, held to what it claims and to what it must equal."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_claim, every_solver, every_solver_with, smooth_grid
from hypothesis import given
from hypothesis import strategies as st

import sde_diffusion as sd
from sde_diffusion.certificates.certificate import SCHEDULES as CERTIFIED
from sde_diffusion.certificates.convergence import (
    endpoint_errors,
    even_grid,
    graded_grid,
    law_error,
    relative_table,
    rough_grid,
)
from sde_diffusion.solvers import TABLEAUX, Tableau, ddim, ddpm, dpm_solver_pp_2m

DOUBLE = torch.float64
OTHERS = {k: v for k, v in SCHEDULES.items() if repr(v) not in map(repr, CERTIFIED.values())}
SMOOTH_TABLE = sd.ddpm_linear(100_000, 1e-6, 2e-4)


def slope(errors, steps):
    """Order of convergence: minus the slope of log error against log steps."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def plan_of(name, schedule, times, options):
    return sd.SOLVERS[name](schedule, times, **options)


@cache
def tables_of(name, schedule):
    """A solver's relative tables on even and on uneven steps."""
    grids = (even_grid(schedule, 20), rough_grid(schedule, 20))
    return [relative_table(sd.SOLVERS[name](schedule, grid), schedule) for grid in grids]


def made_alike(name, *schedules):
    """Whether a solver makes the same tables on both schedules, up to the scale of x."""
    return all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-9, atol=1e-9)
        for one, other in zip(*(tables_of(name, s) for s in schedules), strict=True)
    )


@pytest.mark.parametrize("schedule", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("name", sd.SOLVERS)
def test_order_on_every_schedule(name, schedule):
    """Global error falls at the claimed order, where certificates do not measure it closer.

    Nor where the solver makes the table that it makes on VP, which they measure: in x/alpha and
    lambda all schedules are one process, and the errors are the same.
    """
    claim, make = sd.CLAIMS[name][0], sd.SOLVERS[name]
    if isinstance(schedule, sd.Tabulated) and claim.order > 2:
        schedule = SMOOTH_TABLE  # beyond order 2, the kinks of a coarse table's slopes show
    if made_alike(name, CERTIFIED["VP"], schedule):
        return
    if make(schedule, even_grid(schedule, 20)).stochastic:
        graded = lambda n: graded_grid(schedule, n, claim.order)
        errors = [law_error(make, schedule, graded(n)) for n in (40, 80)]
    else:
        errors = [endpoint_errors(make, schedule, even_grid, n)[0] for n in (40, 80)]
    assert slope(errors, [40, 80]) > claim.order - 0.35, errors


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@each(("name", "claim"), every_claim(lambda claim: claim.point_exact))
def test_point_data_keep_their_marginals(name, claim, schedule):
    """Data in one point: mean alpha_t x_0 and variance sigma_t^2 at every state."""
    grid = sd.times.uniform(schedule, 9, t_start=schedule.time_of(-3.5), t_end=schedule.t_clean)
    plan = plan_of(name, schedule, grid, claim.options)
    matrix, n = plan.matrix(), 1 + plan.nfe
    alpha_T, sigma_T = schedule(plan.rows[0].t)
    times = [*plan.asked_at, plan.times[-1]]
    alpha = torch.tensor([schedule.alpha(t) for t in times], dtype=DOUBLE)
    sigma = torch.tensor([schedule.sigma(t) for t in times], dtype=DOUBLE)
    mean = matrix[:, 0] * alpha_T + matrix[:, 1:n].sum(1)
    variance = (matrix[:, 0] * sigma_T) ** 2 + matrix[:, n:].square().sum(1)
    torch.testing.assert_close(mean, alpha, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(variance, sigma**2, rtol=1e-9, atol=1e-14)


@each(("name", "claim"), every_claim(lambda c: not c.point_exact))
def test_solvers_not_exact_on_a_point_say_so(name, claim):
    """The flag is no mere modesty: the law on a point is off."""
    schedule = sd.VPLinear()
    grid = smooth_grid(schedule, 5)
    _, variance = plan_of(name, schedule, grid, claim.options).law(schedule, 0.0, 0.0)
    assert abs(float(variance) / schedule.sigma(float(grid[-1])) ** 2 - 1) > 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_2m_row_on_data_linear_in_lambda(schedule):
    """d(l) = p + q l: the row with exact inputs misses the exact integral by O(h^3)."""
    p, q = 0.4, -0.3

    def exact(t):  # x / sigma = x_T / sigma_T + int e^l (p + q l) dl, from l = 0
        v = schedule.half_log_snr(t)
        return schedule.sigma(t) * (math.exp(v) * (p + q * (v - 1)) + 1.7)

    misses, sizes = [], [0.2, 0.1, 0.05]
    for h in sizes:
        grid = [schedule.time_of(v) for v in (-0.8 * h, 0.0, h)]  # uneven steps
        row = dpm_solver_pp_2m(schedule, grid).rows[-1]
        d = [p + q * schedule.half_log_snr(t) for t in grid[:2]]
        value = sum(c * exact(grid[k]) for k, c in row.x.items())
        misses.append(abs(value + sum(c * d[j] for j, c in row.d.items()) - exact(grid[-1])))
    assert slope(misses, 1 / np.array(sizes)) > 2.85


@pytest.mark.parametrize("tableau", TABLEAUX.values(), ids=TABLEAUX)
def test_runge_kutta_in_rho_is_exact_for_polynomial_noise(tableau):
    """eps(rho) of degree order - 1: y = x/alpha is its integral."""
    schedule = sd.VPLinear()
    coefficients = [0.7, -0.4, 0.3, 0.2][: tableau.order]
    eps = np.polynomial.Polynomial(coefficients)
    plan = sd.SOLVERS[tableau.name](schedule, smooth_grid(schedule, 3), variable="rho")

    def denoised(x, t):  # such that (x - alpha d) / sigma = eps(rho)
        alpha_t, sigma_t = schedule(t)
        return (x - sigma_t * eps(schedule.rho(t))) / alpha_t

    t, s = plan.times[0], plan.times[-1]
    x = torch.full((1, 1), 0.9, dtype=DOUBLE)
    y = sd.run(plan, denoised, x)
    integral = eps.integ()
    change = integral(schedule.rho(s)) - integral(schedule.rho(t))
    expected = schedule.alpha(s) * (0.9 / schedule.alpha(t) + change)
    assert float(y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_equalities_between_samplers(schedule):
    """DDIM(0) = DPM-Solver-1 = Euler in rho; DDIM(1) = DDPM with the posterior variance."""
    grid = sd.times.uniform(schedule, 8, t_start=schedule.time_of(-3.5))
    deterministic = ddim(schedule, grid)
    assert deterministic.equals(sd.SOLVERS["dpm_solver_1"](schedule, grid))
    assert deterministic.equals(sd.SOLVERS["euler"](schedule, grid, variable="rho"))
    assert ddim(schedule, grid, eta=1.0).equals(ddpm(schedule, grid, variance="posterior"))
    assert not deterministic.equals(ddim(schedule, grid, eta=1e-3))
    assert not deterministic.equals(sd.SOLVERS["heun"](schedule, grid))


def test_euler_on_flow_matching_is_ddim_from_pure_noise():
    schedule = sd.FlowMatching()
    grid = sd.times.uniform(schedule, 6)
    assert sd.SOLVERS["euler"](schedule, grid).equals(ddim(schedule, grid))


@each(
    ("name", "options", "schedule"),
    every_solver_with([sd.VPLinear(), sd.EDM(), sd.FlowMatching()], fully=["ddim", "sa_solver"]),
)
def test_law_is_the_law_of_what_run_does(name, options, schedule):
    """Mean and variance of 40,000 runs on Gaussian data; false alarms below 1e-5 (4.5 sigma)."""
    n, mean, variance = 40_000, 0.8, 0.3
    plan = plan_of(name, schedule, smooth_grid(schedule, 6), options)
    alpha_T, sigma_T = schedule(plan.rows[0].t)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, dtype=DOUBLE, generator=generator)
    x = alpha_T * mean + math.sqrt(alpha_T**2 * variance + sigma_T**2) * x

    def denoised(x, t):
        alpha_t, sigma_t = schedule(t)
        gain = alpha_t * variance / (alpha_t**2 * variance + sigma_t**2)
        return mean + gain * (x - alpha_t * mean)

    y = sd.run(plan, denoised, x, noise=2)
    law_mean, law_variance = (float(v) for v in plan.law(schedule, mean, variance))
    assert float(y.mean()) == pytest.approx(law_mean, abs=4.5 * math.sqrt(law_variance / n))
    assert float(y.var()) == pytest.approx(law_variance, rel=4.5 * math.sqrt(2 / n))


@pytest.mark.parametrize(("name", "claim"), every_claim())
def test_float64_converges_without_a_floor(name, claim):
    """With tiny steps the error keeps falling at the order down to 1e-8 (order > 2)."""
    order, options = claim.usual_order, claim.options
    schedule = sd.VPLinear()
    low, high = (-2.0, 2.0) if name == "restart" else (0.0, 0.8)  # its interval has to fit in
    steps = round((high - low) / (0.002 if order <= 2 else 0.005))
    plan = plan_of(name, schedule, smooth_grid(schedule, steps, low, high), options)
    _, variance = plan.law(schedule, 0.5, torch.tensor(0.4, dtype=DOUBLE))
    alpha_s, sigma_s = schedule(plan.times[-1])
    error = abs(float(variance) / (alpha_s**2 * 0.4 + sigma_s**2) - 1)
    assert error < {1: 1e-2, 2: 1e-5, 3: 1e-7}.get(order, 1e-8)


def test_every_decorated_function_is_exported_and_listed():
    """A solver in any file of the package is in SOLVERS, in CLAIMS and in solvers.__all__."""
    import importlib
    import pkgutil

    for module in pkgutil.iter_modules(sd.solvers.__path__):
        importlib.import_module(f"sde_diffusion.solvers.{module.name}")
    assert set(sd.SOLVERS) == set(sd.CLAIMS)
    assert set(sd.SOLVERS) <= set(sd.solvers.__all__)


@each(("name", "options"), every_solver())
def test_docstrings_say_what_and_where_from(name, options):
    assert len(sd.SOLVERS[name].__doc__) > 100
    assert "times" in sd.SOLVERS[name].__doc__


def test_ends_at_zero_noise_and_zero_signal_are_exact():
    """sigma = 0: the result is the last d; alpha = 0: the start has no data in it."""
    schedule = sd.FlowMatching()
    plan = ddim(schedule, [1.0, 0.5, 0.0])
    assert plan.rows[-1].d == {1: 1.0}
    assert plan.rows[-1].x == {}
    assert ddim(schedule, [1.0, 0.5, 0.0], eta=1.0).rows[1].x == {}
    assert ddpm(schedule, [1.0, 0.5, 0.0]).rows[-1].z == {}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: ddim(s, [1.0, 0.5], etta=1.0), "did you mean 'eta'"),
        (lambda s: ddim(s, [1.0, 0.5], eta=1.5), r"\[0, 1\]"),
        (lambda s: ddpm(s, [1.0, 0.5], variance="postirior"), "did you mean 'posterior'"),
        (lambda s: sd.SOLVERS["heun"](s, [1.0, 0.5], variable="rh"), "did you mean 'rho'"),
        (lambda s: ddim(s, [0.5, 0.5]), "decrease strictly"),
        (lambda s: ddim(s, [0.5, 0.8]), "decrease strictly"),
        (lambda s: ddim(s, [2.0, 0.5]), "outside"),
        (lambda s: ddim(s, [math.nan, 0.5]), "outside"),
        (lambda s: ddim(s, [0.5]), "at least|steps >= 1"),
        (lambda s: ddim(s, torch.tensor([3, 2])), "from_timesteps"),
        (lambda s: ddim([1.0, 0.5], s), "needs a Schedule first"),
        (lambda s: sd.SOLVERS["dpm_solver_1"](sd.FlowMatching(), [1.0, 0.5]), "alpha = 0"),
        (lambda s: Tableau("implicit", 2, ((0.5,),), (1.0,)), "explicit|entries"),
        (lambda s: Tableau("inconsistent", 1, ((),), (0.9,)), "sum to"),
    ],
)
def test_bad_input_is_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call(sd.VPLinear())


@given(eta=st.floats(0.0, 1.0), low=st.floats(0.02, 0.4), high=st.floats(0.5, 1.0))
def test_ddim_step_has_the_variance_it_says(eta, low, high):
    """v = eta^2 sigma_s^2 (1 - e^{-2h}), and no eta changes the marginal on a point."""
    schedule = sd.VPLinear()
    plan = ddim(schedule, [high, low], eta=eta)
    h = schedule.half_log_snr(low) - schedule.half_log_snr(high)
    expected = eta**2 * schedule.sigma(low) ** 2 * -math.expm1(-2 * h)
    drawn = sum(c**2 for c in plan.rows[-1].z.values())
    assert drawn == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_grid_points_follow_the_grid():
    for name, solver in sd.SOLVERS.items():
        grid = smooth_grid(sd.VPLinear(), 4).tolist()
        plan = solver(sd.VPLinear(), grid)
        assert list(plan.times) == grid, name
        assert all(t > s for t, s in pairwise(plan.times))
