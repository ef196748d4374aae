"""Plans that begin anew where a denoiser jumps: the pieces one after another, and their order."""

import math
from itertools import pairwise

import pytest
import torch
from enumeration import SCHEDULES, smooth_grid
from guided_problem import BOTH, WANTED, noised

import sde_diffusion as sd
from sde_diffusion.guidance import classifier_free, limited_interval
from sde_diffusion.transform import afresh

VP = SCHEDULES["vp"]
ENDS = (0.4, 1.7)


def guided(schedule=VP):
    free = classifier_free(WANTED.denoiser(schedule), BOTH.denoiser(schedule), scale=2.0)
    return limited_interval(free, *ENDS)


@pytest.mark.parametrize("name", ["ddim", "dpm_solver_pp_3m", "unipc", "heun", "er_sde"])
def test_it_is_the_pieces_one_after_another(name):
    grid = smooth_grid(VP, 12)
    plan = afresh(sd.SOLVERS[name], VP, grid, ENDS)
    assert len(plan.times) == len(grid)
    moved = [i for i, t in enumerate(plan.times) if abs(t - float(grid[i])) > 1e-12]
    assert [VP.rho(plan.times[i]) for i in moved] == pytest.approx([1.7, 0.4])
    x, denoiser = noised(VP, float(grid[0])), guided()
    cut = [0, *moved, 12]
    parts = [sd.SOLVERS[name](VP, plan.times[i : k + 1]) for i, k in pairwise(cut)]
    assert plan.nfe == sum(part.nfe for part in parts)
    if not plan.stochastic:
        right = x
        for part in parts:
            right = sd.run(part, denoiser, right)
        torch.testing.assert_close(sd.run(plan, denoiser, x), right)
    assert plan.noises == tuple(interval for part in parts for interval in part.noises)
    assert plan.name.startswith(f"afresh({name}")
    plan.check_schedule(VP)
    with pytest.raises(ValueError, match="was made for"):
        plan.check_schedule(sd.VPCosine())


@pytest.mark.parametrize("schedule", [VP, SCHEDULES["edm"], SCHEDULES["flow"]], ids=repr)
def test_across_an_interval_it_keeps_its_order(schedule):
    """Errors over 24 and 96 steps: second order afresh, not beyond the first without."""
    solver, denoiser = sd.SOLVERS["dpm_solver_pp_2m"], guided(schedule)
    grid = lambda steps: smooth_grid(schedule, steps)
    x = noised(schedule, float(grid(4)[0]), n=200)
    run = lambda plan: sd.run(plan, denoiser, x)
    exact = run(afresh(sd.SOLVERS["dpm_solver_pp_3m"], schedule, grid(1500), ENDS))
    error = lambda plan: (run(plan) - exact).square().mean().sqrt()
    slopes = [
        math.log2(error(make(24)) / error(make(96))) / 2
        for make in (
            lambda steps: afresh(solver, schedule, grid(steps), ENDS),
            lambda steps: solver(schedule, grid(steps)),
        )
    ]
    assert slopes[0] > 1.7
    assert slopes[1] < 1.4


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_time_made_from_the_end_of_an_interval_lies_on_it(schedule):
    """Whatever the rounding on the way: not in it at low, in it at high."""
    for low in (0.1 * k for k in range(1, 30)):
        t = schedule.time_of(-math.log(low))
        below, above = (
            limited_interval(guided(schedule).branches[1], *ends)
            for ends in ((low, 9.0), (0.01, low))
        )
        assert (below.inside(t), above.inside(t)) == (False, True)


def test_what_cannot_be():
    grid = smooth_grid(VP, 6)
    for levels, words in (
        ([99.0], "levels has 99, and the grid has sigma/alpha from 7.389 to 0.1353"),
        ([0.0], "levels has 0,"),
        ([1.0, 1.01], "no grid point for 1 alone"),
    ):
        with pytest.raises(ValueError, match=words):
            afresh(sd.solvers.ddim, VP, grid, levels)
    with pytest.raises(ValueError, match="no grid point for 1 alone"):
        afresh(sd.solvers.ddim, VP, grid[[0, -1]], [1.0])
    with pytest.raises(ValueError, match="deis: order = 3 needs at least 3 steps"):
        afresh(sd.solvers.deis, VP, grid, [0.5, 2.0])
