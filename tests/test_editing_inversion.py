"""Editing by inversion: round trips, transport between laws, and what strong guidance costs."""

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from enumeration import smooth_grid

import sde_diffusion as sd
from sde_diffusion import Plan
from sde_diffusion.editing import edit, exactly_reversible
from sde_diffusion.problems import Gaussian, GaussianMixture
from sde_diffusion.solvers.solver import _METHODS

DOUBLE = torch.float64
VP, EDM = sd.VPLinear(), sd.EDM()
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
X = MIXTURE.sample(16, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("schedule", [VP, EDM, sd.ddpm_linear()], ids=repr)
def test_under_one_denoiser_the_picture_comes_back(schedule):
    """To rounding by O-BELM; by DDIM with an error that falls as 1/steps."""
    denoiser = MIXTURE.denoiser(schedule)
    miss = lambda **how: float((edit(X, denoiser, denoiser, **how) - X).abs().max())
    grid = smooth_grid(schedule, 20, -3.0, 3.0)
    assert miss(times=grid) < 1e-8
    errors = [miss(solver="ddim", times=smooth_grid(schedule, n, -3.0, 3.0)) for n in (100, 200)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.3)
    assert errors[1] > 1e-3
    # From and to the state at the clean end, where alpha is not 1; Runge-Kutta's error is tiny.
    assert miss(solver="rk4", times=smooth_grid(schedule, 60, -3.0, 1.0)) < 1e-4


def test_only_methods_that_are_their_own_inverse_are_taken_for_such():
    """By their tables, of all deterministic solvers; and only on grids that belong together."""
    for grid in (smooth_grid(VP, 2), smooth_grid(VP, 6)):
        found = []
        for name, make in sd.SOLVERS.items():
            try:
                there = sd.invert(name, VP, grid)
            except ValueError:  # it draws noise, needs more steps, or has no inverse
                continue
            found += [name] if exactly_reversible(there, make(VP, grid)) else []
        assert found == ["o_belm"]
    there, back = sd.invert("o_belm", VP, grid), sd.solvers.o_belm(VP, grid)
    assert exactly_reversible(back, there)
    assert not exactly_reversible(there, sd.solvers.o_belm(VP, grid[2:]))
    for i in range(2, 7):  # every row but that of the first step has its part in it
        row = back.rows[i]
        changed = [{"d": {k: 1.01 * c for k, c in row.d.items()}}, {"x": {}}, {"z": {0: 0.1}}]
        changed += [{"kind": "stage"}] if i < 6 else []
        for what in changed:
            rows = (*back.rows[:i], replace(row, **what), *back.rows[i + 1 :])
            other = Plan(rows, ((1.0, 0.5),) if "z" in what else ())
            assert not exactly_reversible(there, other)
            assert not exactly_reversible(other, there)
    other = sd.solvers.o_belm(VP, smooth_grid(VP, 6, -2.1, 2.0))
    assert not exactly_reversible(sd.invert("o_belm", VP, grid), other)


@pytest.mark.parametrize("solver", ["o_belm", "heun"])
@pytest.mark.parametrize(("schedule", "end"), [(EDM, 0.002), (VP, 0.2)], ids=repr)
def test_between_gaussians_it_is_the_map_of_quantiles(solver, schedule, end):
    """x -> mu' + r (x - mu), up to what the noisy end of the grid leaves out.

    r^2 = (alpha^2 v' + sigma^2)/(alpha^2 v + sigma^2) at the clean end: the state there is alpha x.
    """
    source, target = Gaussian([0.5], 0.2), Gaussian([-1.0], 0.8)
    x = torch.linspace(-0.5, 1.5, 5, dtype=DOUBLE)[:, None]
    grid = sd.times.uniform_lambda(schedule, 400, schedule.t_max, end)
    ends = source.denoiser(schedule), target.denoiser(schedule)
    found = edit(x, *ends, solver=solver, times=grid)
    alpha, sigma = (float(c) for c in schedule(end))
    ratio = math.sqrt((alpha**2 * 0.8 + sigma**2) / (alpha**2 * 0.2 + sigma**2))
    torch.testing.assert_close(found, -1.0 + ratio * (x - 0.5), rtol=0.02, atol=0.02)


def test_strong_guidance_on_the_way_there_is_not_undone():
    """DDIM, 50 steps: the round trip under guidance of scale w misses the more, the larger w."""
    parts = [
        GaussianMixture([1.0], m, [c]) for m, c in (([[-1.0, 0.5]], 0.09), ([[0.8, -0.2]], 0.25))
    ]
    every, own = MIXTURE.denoiser(VP), parts[1].denoiser(VP)
    x = parts[1].sample(64, torch.Generator().manual_seed(1))

    def guided(w):
        return sd.FunctionDenoiser(lambda x, t: every(x, t) + w * (own(x, t) - every(x, t)), VP)

    grid = sd.times.default(VP, 50, t_end=VP.t_clean)
    misses = [
        float((edit(x, guided(w), guided(w), solver="ddim", times=grid) - x).norm(dim=1).median())
        for w in (1.0, 3.0, 7.0)
    ]
    assert misses[0] < misses[1] < misses[2]


def test_the_latents_of_o_belm_have_the_size_of_noise_on_the_default_grid_of_editing():
    """Its second root swells where steps grow: by 10 and more on the default grid of sampling."""
    sizes = []
    for grid in (sd.times.karras, sd.times.default):
        up = sd.invert("o_belm", VP, grid(VP, 30, t_end=VP.t_clean))
        sizes.append(float(sd.run(up, MIXTURE.denoiser(VP), X).square().mean().sqrt()))
    heun = sd.invert("heun", VP, sd.times.karras(VP, 200, t_end=VP.t_clean))
    right = float(sd.run(heun, MIXTURE.denoiser(VP), X).square().mean().sqrt())
    assert sizes[0] == pytest.approx(right, rel=0.1)
    assert sizes[1] > 2 * right


@pytest.mark.parametrize("name", ["ddim", "o_belm"])
def test_a_solver_may_be_given_as_its_function(name):
    target = Gaussian([0.5, -0.5], 0.2).denoiser(VP)
    found = edit(X, DENOISER, target, solver=sd.SOLVERS[name], steps=4)
    assert torch.equal(found, edit(X, DENOISER, target, solver=name, steps=4))


@pytest.mark.parametrize("solver", ["ddim", "o_belm"])
def test_progress_changes_nothing(solver, capsys):
    plain = edit(X, DENOISER, DENOISER, solver=solver, steps=2)
    assert not capsys.readouterr().out
    shown = edit(X, DENOISER, DENOISER, solver=solver, steps=2, progress=True)
    assert torch.equal(plain, shown)
    assert capsys.readouterr().out.count("\n") == 2  # a bar for each way, which goes away


def test_exact_reversal_begins_at_two_steps():
    miss = lambda n: float((edit(X, DENOISER, DENOISER, steps=n) - X).abs().max())
    assert miss(2) < 1e-8 < 1e-3 < miss(1)


@pytest.mark.parametrize("schedule", [VP, EDM], ids=repr)
def test_the_start_and_the_default(schedule):
    """o_belm on 20 steps to t_clean; the picture is not changed, and float32 stays."""
    x = X.float()
    kept = x.clone()
    ends = MIXTURE.denoiser(schedule), Gaussian([0.5, -0.5], 0.2).denoiser(schedule)
    found = edit(x, *ends)
    grid = sd.times.karras(schedule, 20, t_end=schedule.t_clean)
    assert torch.equal(found, edit(x, *ends, solver="o_belm", times=grid))
    assert found.dtype is torch.float32
    assert torch.equal(x, kept)
    assert found.shape == x.shape


NOISE_ALONE = [sd.FlowMatching(), sd.ZeroTerminalSNR(sd.ddpm_linear())]  # alpha = 0 at t_max


@pytest.mark.parametrize("schedule", NOISE_ALONE, ids=repr)
def test_where_alpha_is_0_the_grid_of_editing_starts_at_a_finite_level(schedule):
    """By all deterministic solvers the picture comes back, o_belm's to rounding; x_T is noise."""
    denoiser = MIXTURE.denoiser(schedule)
    miss = lambda **how: float((edit(X, denoiser, denoiser, **how) - X).abs().max())
    assert miss() < 1e-8
    ways = [{}, {"times": "uniform"}, {"times": sd.times.karras}]
    ways += [{"times": lambda schedule, steps, **ends: sd.times.karras(schedule, steps, **ends)}]
    assert max(miss(solver="rk4", **how) for how in ways) < 2e-3
    grid = sd.times.karras(schedule, 30, schedule.time_of(-math.log(100)), schedule.t_clean)
    for name, make in sd.SOLVERS.items():
        if not make(VP, smooth_grid(VP, 8)).stochastic and name != "lms":  # useless in few steps
            assert miss(solver=name, times=grid) < 0.5, name
    sizes = [
        float(sd.run(sd.invert(name, schedule, grid), denoiser, X).square().mean().sqrt())
        for name in ("o_belm", "rk4")
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


@pytest.mark.parametrize("schedule", NOISE_ALONE, ids=repr)
@pytest.mark.parametrize("name", ["o_belm", "ddim", "adams", "richardson"])
def test_solvers_that_cannot_begin_without_signal_name_those_that_can(schedule, name):
    """And the other cure that is named, the start inside, works with the solver itself."""
    denoiser = MIXTURE.denoiser(schedule)
    grid = sd.times.uniform(schedule, 20, t_end=schedule.t_clean)
    with pytest.raises(ValueError, match=r"alpha = 0 at t = 1.*t_start=.*t_end=") as told:
        edit(X, denoiser, denoiser, solver=name, times=grid)
    named = re.findall("'(.*?)'", str(told.value))
    assert name not in named
    assert {"heun", "rk4"} <= set(named)
    for other in named:
        assert (edit(X, denoiser, denoiser, solver=other, times=grid) - X).abs().max() < 1
    start, end = schedule.time_of(-4.6), schedule.t_clean  # as it says
    inside = sd.times.karras(schedule, 20, t_start=start, t_end=end)
    assert (edit(X, denoiser, denoiser, solver=name, times=inside) - X).abs().max() < 1


def test_a_function_of_ones_own_is_taken_once_it_is_entered(monkeypatch):
    def mine(schedule, times):
        """Euler's step in lambda, DDIM's: x_s = alpha_s d + sigma_s (x_t - alpha_t d)/sigma_t."""
        trace = sd.Trace(times[0])
        x = trace.x
        for t, s in pairwise(times):
            x, d = trace.denoise(x, t)
            x = schedule.alpha(s) * d + schedule.sigma(s) / schedule.sigma(t) * (
                x - schedule.alpha(t) * d
            )
        return trace.end(x, times[-1])

    with pytest.raises(TypeError, match=r"enter it, @sd.solver\('.*', sd.Claim\(order=1\)\)"):
        edit(X, DENOISER, DENOISER, solver=mine)
    for table in (sd.SOLVERS, sd.CLAIMS, sd.PAPERS, _METHODS):
        monkeypatch.setitem(table, "mine", None)  # so that it leaves them when the test ends
        del table["mine"]
    entered = sd.solver("where it comes from", sd.Claim(order=1))(mine)
    right = edit(X, DENOISER, DENOISER, solver="ddim")
    for given in (entered, "mine"):
        torch.testing.assert_close(edit(X, DENOISER, DENOISER, solver=given), right)


DENOISER = MIXTURE.denoiser(VP)
PLAN = sd.solvers.ddim(VP, sd.times.karras(VP, 4, t_end=VP.t_clean))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: edit(X, DENOISER, MIXTURE.denoiser(EDM)), "different schedules"),
        (lambda: edit(X, DENOISER, lambda x, t: x), "which has no schedule; wrap it"),
        (lambda: edit(X.int(), DENOISER, DENOISER), "127.5 - 1"),
        (lambda: edit(X, DENOISER, DENOISER, solver="ddpm"), "draws noise"),
        (lambda: edit(X, DENOISER, DENOISER, solver="o_blem"), "did you mean 'o_belm'"),
        (lambda: edit(X, DENOISER, DENOISER, solver=PLAN), "the plan 'ddim.* a name of SOLVERS"),
        (lambda: edit(X, DENOISER, DENOISER, solver=Path("my.json")), "the plan of 'my.json'"),
        (lambda: edit(X, DENOISER, DENOISER, solver="my.json"), "the plan of 'my.json'"),
        (lambda: edit(X, DENOISER, DENOISER, solver="scipy"), "scipy, whose steps depend"),
        (lambda: edit(X, DENOISER, DENOISER, solver="annealed_langevin"), "steps depend on the"),
        (lambda: edit(X, DENOISER, DENOISER, solver="diffusers DDIM"), "is made of, 'ddim'$"),
        (
            lambda: edit(X, DENOISER, DENOISER, solver=sd.preset("azula vAB")),
            "made of, 'adams', ord",
        ),
        (lambda: edit(X, DENOISER, DENOISER, solver=lambda *grid: PLAN), "enter it, @sd.solver"),
        (lambda: edit(X, DENOISER, DENOISER, solver=3), "solver is 3: .* a name of SOLVERS"),
        (lambda: edit(X, DENOISER, DENOISER, times=[1.0, 0.0]), "sigma = 0"),
        (lambda: edit(X, DENOISER, DENOISER, times=[1.0, 0.1], steps=1), "beside given times"),
        (lambda: edit(X, DENOISER, DENOISER, times="leading"), "cannot end inside"),
        (lambda: edit(X, DENOISER, DENOISER, times=max), "times = max: .* cannot end inside"),
    ],
)
def test_bad_input_is_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
