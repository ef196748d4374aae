"""Editing by inversion: round trips, transport between laws, and what strong guidance costs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from enumeration import smooth_grid

import sde_diffusion as sd
from sde_diffusion import Plan
from sde_diffusion.editing import edit, exactly_reversible
from sde_diffusion.problems import Gaussian, GaussianMixture

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


DENOISER = MIXTURE.denoiser(VP)
PLAN = sd.solvers.ddim(VP, sd.times.karras(VP, 4, t_end=VP.t_clean))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: edit(X, DENOISER, MIXTURE.denoiser(EDM)), "different schedules"),
        (lambda: edit(X, DENOISER, lambda x, t: x), "needs a Denoiser"),
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
        (lambda: edit(X, DENOISER, DENOISER, solver=lambda *grid: PLAN), "unknown solver"),
        (lambda: edit(X, DENOISER, DENOISER, times=[1.0, 0.0]), "sigma = 0"),
        (lambda: edit(X, DENOISER, DENOISER, times=[1.0, 0.1], steps=1), "beside given times"),
        (lambda: edit(X, DENOISER, DENOISER, times="leading"), "cannot end inside"),
    ],
)
def test_bad_input_is_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
