"""Inversion: solvers on reversed grids keep their order; O-BELM comes back to rounding."""

import math
from functools import cache

import pytest
import torch
from enumeration import smooth_grid

import sde_diffusion as sd
from sde_diffusion.problems import GaussianMixture
from sde_diffusion.solvers import ddim, deis, o_belm

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
VP = sd.VPLinear()
SCHEDULES = {"vp": VP, "edm": sd.EDM(), "flow": sd.FlowMatching()}
GOING_ONE_WAY = ("richardson",)  # calls other solvers, which want a grid from noisy to clean


def rms(x):
    return float(x.square().mean().sqrt())


def clean_states(schedule, t):
    return MIXTURE.sample_marginal(32, *schedule(t), torch.Generator().manual_seed(1))


@cache
def noisy_ends(t, s):
    """Where the trajectories of the clean states come from."""
    return MIXTURE.endpoint(clean_states(VP, s), VP, s, t)


def deterministic():
    plans = {name: solver(VP, smooth_grid(VP, 8)) for name, solver in sd.SOLVERS.items()}
    return [n for n, plan in plans.items() if not plan.stochastic and n not in GOING_ONE_WAY]


@pytest.mark.parametrize("name", deterministic())
def test_inverses_converge_to_the_trajectory_at_the_order_of_the_solver(name):
    order = sd.CLAIMS[name][0].usual_order
    grids = [smooth_grid(VP, n) for n in (80, 160)]
    t, s = float(grids[0][0]), float(grids[0][-1])
    x, exact = clean_states(VP, s), noisy_ends(t, s)
    coarse, fine = (
        rms(sd.run(sd.invert(name, VP, grid), MIXTURE.denoiser(VP), x) - exact) for grid in grids
    )
    assert math.log2(coarse / fine) > order - 0.35 or fine < 1e-7


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 3), ("adams", 2), ("rk4", 5)])
def test_order_at_which_round_trips_close(name, order, schedule):
    """Data to noise and back: DDIM misses by O(h); one-step methods of even order gain one."""
    denoiser, gaps = MIXTURE.denoiser(schedule), []
    for n in (80, 160):
        grid = smooth_grid(schedule, n)
        x = clean_states(schedule, float(grid[-1]))
        noisy = sd.run(sd.invert(name, schedule, grid), denoiser, x)
        gaps.append(rms(sd.run(sd.SOLVERS[name](schedule, grid), denoiser, noisy) - x))
    assert math.log2(gaps[0] / gaps[1]) == pytest.approx(order, abs=0.3)
    assert gaps[1] > 1e-11  # and never to rounding


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("steps", [4, 20])
def test_o_belm_is_its_own_inverse(schedule, steps):
    """Both ways, with the last two states at hand; without the second of them it misses."""
    grid, denoiser = smooth_grid(schedule, steps), MIXTURE.denoiser(schedule)
    down, up = o_belm(schedule, grid), sd.invert("o_belm", schedule, grid)
    noisy = MIXTURE.sample_marginal(32, *schedule(float(grid[0])), torch.Generator().manual_seed(0))
    clean = clean_states(schedule, float(grid[-1]))
    for there, back, x in ((down, up, noisy), (up, down, clean)):
        path = sd.record(there, denoiser, x)
        last, before = path.states[-1], path.states[-2]
        returned = sd.run(back, denoiser, last, callback=sd.resume(last, before))
        assert rms(returned - x) < 1e-11 * rms(x)
        assert rms(sd.run(back, denoiser, last) - x) > 1e-4 * rms(x)


def test_o_belm_by_hand():
    """On even steps in rho it is the leapfrog, y_s = y_prev + 2 h eps_t; then one uneven step."""
    plan = o_belm(sd.EDM(), [4.0, 3.0, 2.0, 0.5])
    x_1, x_2, x_3 = (dict(row.x) for row in plan.rows[1:])
    assert x_2 == pytest.approx({1: -2 / 3, 0: 1.0})  # eps = (x - d)/3, h = -1
    assert plan.rows[2].d == pytest.approx({1: 2 / 3})
    q, gain = 1.5**2, -1.5 * 2.5
    assert x_3 == pytest.approx({2: 1 - q + gain / 2, 1: q})
    assert plan.rows[3].d == pytest.approx({2: -gain / 2})
    assert x_1 == pytest.approx({0: 0.75})


def test_inverse_of_ddim_by_hand():
    """One step up: x_s = alpha_s d + sigma_s eps at the cleaner time."""
    plan = sd.invert(ddim, VP, [0.6, 0.3])
    assert plan.times == (0.3, 0.6)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = VP(0.3), VP(0.6)
    assert plan.rows[1].x == pytest.approx({0: sigma_s / sigma_t})
    assert plan.rows[1].d == pytest.approx({0: alpha_s - sigma_s / sigma_t * alpha_t})
    assert plan.name == "inverse of ddim(eta=0.0)"


@pytest.mark.parametrize("variable", ["t", "rho"])
def test_quadratures_are_as_exact_upwards_as_downwards(variable):
    """DEIS from t_clean, where sigma ~ sqrt(t): the weights up and down are the same integrals."""
    t, s = 0.4, 1e-5
    nodes = [t, s]
    from sde_diffusion.solvers.exponential import weights

    down = weights(VP, t, s, nodes, "noise", variable).outputs
    up = weights(VP, s, t, nodes, "noise", variable).outputs
    for a, b in zip(down, up, strict=True):
        assert a / VP.alpha(s) == pytest.approx(-b / VP.alpha(t), rel=1e-11)
    assert sd.invert(deis, VP, [t, 0.1, s], order=2, variable=variable).nfe == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sd.invert("ddim", VP, [1.0, 0.5, 0.0]), "t_end=schedule.t_clean"),
        (lambda: sd.invert("ddim", VP, [1.0, 0.5], eta=0.5), "draws noise"),
        (lambda: sd.invert("euler_maruyama", VP, [1.0, 0.5]), "draws noise"),
        (lambda: sd.invert("dimm", VP, [1.0, 0.5]), "did you mean 'ddim'"),
        (lambda: sd.invert("ddim", VP, [0.5, 1.0]), "decrease strictly"),
        (lambda: sd.invert("ddim", VP, [1.0, 0.5], etta=0.0), "did you mean 'eta'"),
        (lambda: sd.invert("dpm_solver_1", sd.FlowMatching(), [1.0, 0.5]), "alpha = 0"),
        (lambda: sd.invert("ddim", sd.FlowMatching(), [1.0, 0.5]), "no inverse on this grid"),
        (lambda: sd.invert("ddim", [1.0, 0.5], VP), "needs a Schedule second"),
        (lambda: sd.invert("azula vAB", VP, [1.0, 0.5]), "made of, 'adams', order=2"),
        (lambda: sd.invert("scipy", VP, [1.0, 0.5]), "steps depend on the samples"),
        (lambda: sd.resume(), "at least one state"),
    ],
)
def test_bad_requests_are_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_a_function_of_a_known_name_that_is_no_solver_is_refused():
    def heun(schedule, times):
        raise AssertionError

    with pytest.raises(TypeError, match=r"not in SOLVERS"):
        sd.invert(heun, VP, [1.0, 0.5])


def test_richardson_extrapolation_has_an_inverse():
    """Its pieces are made on the reversed grid too; there and back is better than the base's."""
    schedule = sd.VPLinear()
    denoiser = sd.problems.two_gaussians().denoiser(schedule)
    x = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    grid = sd.times.uniform(schedule, 40, t_start=0.6, t_end=0.1)

    def error(name):
        noise = sd.run(sd.invert(name, schedule, grid), denoiser, x)
        return float((sd.run(sd.SOLVERS[name](schedule, grid), denoiser, noise) - x).abs().max())

    assert error("richardson") < error("ddim") / 10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["angular", "velocity_adams"])
def test_inversion_up_to_pure_noise(name):
    """Where the output is regular at alpha = 0, the way back ends there: x_T is that of the ODE."""
    schedule = sd.FlowMatching()
    problem = sd.problems.two_gaussians()
    x = torch.linspace(-1.5, 1.5, 5, dtype=torch.float64)[:, None]
    grid = sd.times.uniform(schedule, 80, t_end=0.2)
    found = sd.run(sd.invert(name, schedule, grid), problem.denoiser(schedule), x)
    assert torch.allclose(found, problem.endpoint(x, schedule, 0.2, 1.0), atol=2e-3)
