"""Free times: any numbers are a grid, the start is the solver's own plan, slopes; the bound."""

import pytest
import torch
from cases import each

import sde_diffusion as sd
from sde_diffusion.tuning.bound import bound, bound_times
from sde_diffusion.tuning.knots import knots, numbers_of, times_of
from tests.enumeration import SCHEDULES, every_solver, smooth_grid

ALL = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@ALL
def test_any_numbers_are_a_grid_and_any_grid_is_numbers(schedule):
    grid = sd.times.default(schedule, 7)
    u = 2 * torch.randn(6, generator=torch.Generator().manual_seed(0)).double()
    times = times_of(schedule, grid, u)
    assert bool((times.diff() < 0).all())
    assert times[0] == grid[0]
    assert times[-1] == grid[-1]
    torch.testing.assert_close(numbers_of(schedule, times), u, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        times_of(schedule, grid, numbers_of(schedule, grid)), grid, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("grid", ["default", "karras", "uniform_lambda"])
@pytest.mark.parametrize("asked", [False, True])
def test_no_numbers_ask_a_network_below_the_cleanest_time(grid, asked):
    """Below t_clean, or half of it in the angle where the grid itself goes down to it."""
    for schedule in (SCHEDULES["vp"], SCHEDULES["edm"], SCHEDULES["flow"]):
        times = sd.times.GRIDS[grid](schedule, 4, t_start=0.99 * schedule.t_max)
        family = knots("ddim", schedule, times, asked=asked)
        assert family.plan().equals(sd.SOLVERS["ddim"](schedule, times), 1e-6)
        for size in (-12.0, 12.0):
            plan = family.plan(family.start + size)
            limit = schedule.rho(schedule.t_clean) * (1 if grid == "default" else 0.499)
            assert all(schedule.rho(t) >= limit * (1 - 1e-9) for t in plan.asked_at)


@ALL
def test_steps_share_the_angle_as_a_softmax(schedule):
    grid = smooth_grid(schedule, 4)
    u = torch.tensor([0.3, -1.0, 0.5]).double()
    alpha, sigma = schedule(times_of(schedule, grid, u))
    steps = -torch.atan2(sigma, alpha).diff()
    torch.testing.assert_close(steps / steps[-1], torch.tensor([*u, 0.0]).double().exp())


@ALL
def test_times_move_with_their_numbers(schedule):
    grid = sd.times.default(schedule, 4)
    u = numbers_of(schedule, grid) + 0.2
    slope = torch.autograd.functional.jacobian(lambda v: times_of(schedule, grid, v), u)
    for i, step in enumerate(1e-6 * torch.eye(len(u), dtype=torch.float64)):
        moved = times_of(schedule, grid, u + step) - times_of(schedule, grid, u - step)
        size = slope[:, i].abs().max()
        torch.testing.assert_close(slope[:, i], moved / 2e-6, rtol=1e-6, atol=1e-7 * float(size))


@each(("name", "options"), every_solver())
def test_the_start_is_the_solvers_own_plan(name, options):
    schedule = sd.VPLinear()
    grid = smooth_grid(schedule, 6)
    family = knots(name, schedule, grid, **options)
    assert family.plan().equals(sd.SOLVERS[name](schedule, grid, **options), 1e-6)
    assert len(family.names) == len(family.start) == 5


def test_calls_are_asked_at_their_own_times():
    schedule, grid = sd.EDM(), sd.times.default(sd.EDM(), 3)
    family = knots("heun", schedule, grid, asked=True)
    plan = family.plan()
    assert len(family.start) == 2 + plan.nfe - 1  # the call at the start stays
    torch.testing.assert_close(
        torch.tensor(plan.asked_at), torch.tensor(sd.SOLVERS["heun"](schedule, grid).asked_at)
    )
    shifted = family.start.clone()
    shifted[3] = 5.0
    moved = family.plan(shifted)
    others = [j for j in range(plan.nfe) if j != 2]
    assert all(moved.asked_at[j] == plan.asked_at[j] for j in others)
    assert plan.asked_at[2] < moved.asked_at[2] < schedule.t_max  # noisier, and inside
    assert moved.matrix().equal(plan.matrix())  # the table is that of the grid


def test_one_step_has_no_knot_and_wrong_names_are_told():
    with pytest.raises(ValueError, match="no interior time"):
        knots("ddim", sd.EDM(), [80.0, 0.0])
    with pytest.raises(ValueError, match="did you mean 'ddim'"):
        knots("dddim", sd.EDM(), [80.0, 1.0, 0.0])


def test_the_bound_of_ddim_is_closed():
    """w_j e_j = rho_N (1/rho_{j+1} - 1/rho_j) rho_j for p = 1: rho_N sum (rho_j/rho_{j+1} - 1)."""
    schedule = sd.EDM()
    rho = torch.tensor([80.0, 11.0, 2.0, 0.4, 0.1]).double()
    plan = sd.SOLVERS["ddim"](schedule, rho)
    closed = rho[-1] * (rho[:-1] / rho[1:] - 1).sum()
    assert float(bound(plan, schedule, 1.0)) == pytest.approx(float(closed), rel=1e-12)


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_the_best_grid_of_ddim_under_the_bound_is_even_in_lambda(name):
    """The sum of rho_j/rho_{j+1} with a fixed product is least where all are equal."""
    schedule = SCHEDULES[name]
    start, end = (schedule.time_of(v) for v in (-2.5, 2.5))
    times = bound_times("ddim", schedule, 5, t_start=start, t_end=end, power=1.0)
    gaps = schedule.half_log_snr(times).diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1.0), rtol=2e-3, atol=0)


def test_at_power_2_no_grid_near_the_best_of_ddim_is_better():
    """sum rho_N (1/rho_{j+1} - 1/rho_j) rho_j^2/sqrt(1 + rho_j^2): no neighbour lowers it."""
    schedule, n = sd.EDM(), 4

    def value(rho):
        e = rho**2 / (1 + rho**2).sqrt()
        return float((rho[-1] * (1 / rho[1:] - 1 / rho[:-1]) * e[:-1]).sum())

    best = bound_times("ddim", schedule, n, t_end=0.1, power=2.0)
    for i in range(1, n):
        for factor in (0.97, 1.03):
            other = best.clone()
            other[i] *= factor
            assert value(other) > value(best)


def test_at_sigma_0_the_bound_is_that_of_the_last_call():
    schedule = sd.EDM()
    times = bound_times("ddim", schedule, 5, t_last=0.2)
    assert float(times[-2]) == pytest.approx(0.2)
    assert float(times[-1]) == 0.0
    again = bound_times("ddim", schedule, 4, t_end=0.2)
    torch.testing.assert_close(times[:-1], again)
    default = bound_times("ddim", schedule, 5)
    assert float(default[-2]) == pytest.approx(float(sd.times.default(schedule, 5)[-2]))
    assert bound_times("ddim", schedule, 1).tolist() == [80.0, 0.0]
    with pytest.raises(ValueError, match="t_last"):
        bound_times("ddim", schedule, 4, t_end=0.2, t_last=0.3)
    with pytest.raises(ValueError, match="power"):
        bound_times("ddim", schedule, 4, power=-1.0)
