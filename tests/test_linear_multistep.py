"""Linear multistep methods: what they equal, what they converge at, and on which grids."""

import math

import numpy as np
import pytest
import torch
from enumeration import SCHEDULES, smooth_grid

import sde_diffusion as sd
from sde_diffusion.problems import GaussianMixture
from sde_diffusion.solvers import adams, ddim, deis, heun, ipndm, lms, pndm, rk4, velocity_adams

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])


def even_in_rho(schedule, steps):
    levels = np.linspace(math.e**2, math.e**-2, steps + 1)
    return [schedule.time_of(-math.log(rho)) for rho in levels]


def alternating(schedule, steps):
    """Step ratios that stay away from 1 however fine the grid is."""
    ends = np.cumsum([0.0, *[1.0, 1.6, 0.7, 1.3] * (steps // 4)])
    return [schedule.time_of(-2 + 4 * u / ends[-1]) for u in ends]


def errors(solver, schedule, grids, **options):
    """Endpoint errors with the first four states taken from the exact trajectory."""
    t, s = float(grids[0][0]), float(grids[0][-1])
    x = MIXTURE.sample_marginal(32, *schedule(t), torch.Generator().manual_seed(0))
    exact = MIXTURE.endpoint(x, schedule, t, s)
    found = []
    for grid in grids:
        first = [x, *(MIXTURE.endpoint(x, schedule, t, float(u)) for u in grid[1:4])]
        y = sd.run(
            solver(schedule, grid, **options),
            MIXTURE.denoiser(schedule),
            x,
            callback=lambda p, first=first: first[p.index] if p.index < len(first) else None,
        )
        found.append(float((y - exact).square().mean().sqrt()))
    return np.array(found)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_equalities(schedule):
    """LMS = DEIS in rho = iPNDM on the grid's own weights; even grids need no others."""
    grid = sd.times.karras(schedule, 7, t_start=schedule.time_of(-3.5))
    for order in (1, 2, 3, 4):
        exact = lms(schedule, grid, order=order)
        assert exact.equals(deis(schedule, grid, order=order, variable="rho"))
        assert exact.equals(ipndm(schedule, grid, order=order, coefficients="variable"))
        even = even_in_rho(schedule, 7)
        assert ipndm(schedule, even, order=order).equals(lms(schedule, even, order=order))
        if order < 4:
            shipped = ipndm(schedule, even, order=order, coefficients="shipped")
            assert shipped.equals(lms(schedule, even, order=order))
    shipped = ipndm(schedule, grid, order=2, coefficients="shipped")
    assert shipped.equals(lms(schedule, grid, order=2))
    shipped = ipndm(schedule, grid, order=3, coefficients="shipped")
    assert not shipped.equals(lms(schedule, grid, order=3))
    assert not ipndm(schedule, grid).equals(lms(schedule, grid))
    for one in (ipndm(schedule, grid, order=1), velocity_adams(schedule, grid, order=1)):
        assert one.equals(ddim(schedule, grid))


def test_velocity_adams_on_flow_matching_is_adams_bashforth_in_time():
    """On alpha = 1 - t, sigma = t: x_s = x_t + h (3 v - v_1)/2 on even steps, v = dx/dt."""
    schedule, h = sd.FlowMatching(), 0.25
    plan = velocity_adams(schedule, [1.0, 0.75, 0.5, 0.25], order=2)
    v = torch.zeros(2, plan.matrix().shape[1], dtype=torch.float64)  # over (x_T, d_0, d_1, d_2)
    states = plan.matrix()
    for i, t in enumerate((0.75, 0.5)):
        v[i] = states[i + 1] / t
        v[i, 2 + i] -= 1 / t
    torch.testing.assert_close(states[3], states[2] - h * (3 * v[1] - v[0]) / 2)
    variable = {"prediction": "velocity", "variable": "phi"}
    assert plan.equals(adams(schedule, [1.0, 0.75, 0.5, 0.25], order=2, **variable))


def test_pndm_on_rho_as_time_starts_as_the_classical_runge_kutta():
    """On the EDM schedule t = rho: three steps of PRK are three of RK4; then PLMS."""
    schedule = sd.EDM()
    three = [8.0, 5.0, 3.0, 1.0]
    assert pndm(schedule, three).equals(rk4(schedule, three, variable="rho"))
    longer = pndm(schedule, [*three, 0.5, 0.2])
    assert longer.nfe == 3 * 4 + 2
    assert pndm(schedule, [*three[:3], 0.0]).nfe == 2 * 4 + 1
    assert not pndm(schedule, three).equals(heun(schedule, three, variable="rho"))


@pytest.mark.parametrize("schedule", [sd.VPLinear(), sd.EDM(), sd.FlowMatching()], ids=repr)
@pytest.mark.parametrize(
    ("options", "grid", "order"),
    [
        ({}, smooth_grid, 2),
        ({}, even_in_rho, 4),
        ({"coefficients": "variable"}, alternating, 4),
        ({"order": 3, "coefficients": "variable"}, alternating, 3),
        ({"order": 3, "coefficients": "shipped"}, smooth_grid, 3),
        ({"order": 3, "coefficients": "shipped"}, alternating, 2),
        ({"coefficients": "shipped"}, smooth_grid, 3),
        ({"coefficients": "shipped"}, alternating, 0),
    ],
)
def test_order_of_ipndm_depends_on_the_grid(options, grid, order, schedule):
    """Measured from exact starting values; the slope is the order, no more and no less."""
    steps = [160, 320] if grid is not even_in_rho else [640, 1280]
    found = errors(ipndm, schedule, [grid(schedule, n) for n in steps], **options)
    assert math.log2(found[0] / found[1]) == pytest.approx(order, abs=0.2)


def test_pure_noise_is_a_start_for_even_coefficients_only():
    """At alpha = 0 the first step is DDIM; the exact weights of LMS in rho have no limit."""
    schedule = sd.FlowMatching()
    grid = sd.times.uniform(schedule, 6)
    first = ddim(schedule, grid[:2]).matrix()[-1]
    torch.testing.assert_close(ipndm(schedule, grid).matrix()[1, :2], first)
    with pytest.raises(ValueError, match="alpha = 0"):
        lms(schedule, grid)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 5}, "from 1 to 4"),
        ({"order": 2.0}, "must be an integer"),
        ({"order": True}, "must be an integer"),
        ({"coefficients": "evn"}, "did you mean 'even'"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ipndm(sd.VPLinear(), [1.0, 0.9, 0.7, 0.5, 0.3], **options)


def test_more_orders_than_steps_are_refused():
    with pytest.raises(ValueError, match="needs at least 4 steps, and the grid has 2"):
        ipndm(sd.VPLinear(), [1.0, 0.9, 0.7])


def test_shipped_weights_of_order_four_on_even_steps():
    """(57, -65, 43, -11)/24 where Adams-Bashforth has (55, -59, 37, -9)/24."""
    grid = [10.0, 9.0, 8.0, 7.0, 6.0]  # rho = t, h = -1
    matrix = ipndm(sd.EDM(), grid, coefficients="shipped").matrix()
    eps = matrix[:4].clone()  # (x_t - d)/t
    for i, t in enumerate(grid[:4]):
        eps[i, 1 + i] -= 1
        eps[i] /= t
    b = torch.tensor([-11.0, 43.0, -65.0, 57.0], dtype=torch.float64) / 24  # oldest first
    torch.testing.assert_close(matrix[4], matrix[3] - b @ eps)
