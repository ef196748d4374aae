"""Whole tables from several first guesses."""

import itertools
import math
from functools import cache

import pytest
import torch
from enumeration import SCHEDULES

import sde_diffusion as sd
from sde_diffusion.tuning.base import Base
from sde_diffusion.tuning.loss import endpoint
from sde_diffusion.tuning.pairs import Pairs
from sde_diffusion.tuning.restarts import first_guesses, restarts

VP = sd.VPLinear()
DATA = sd.problems.ring()


def base(nfe, schedule=VP):
    plan = sd.SOLVERS["ddim"](schedule, sd.times.default(schedule, nfe))
    return Base(plan, schedule, plan.times)


@cache
def exact_pairs(n, seed, schedule):
    t = schedule.t_max
    generator = torch.Generator().manual_seed(seed)
    x = DATA.sample_marginal(n, *schedule(t), generator=generator)
    return x, DATA.endpoint(x, schedule, t, 0.0)


def pairs(n, seed, schedule=VP):
    starts, ends = exact_pairs(n, seed, schedule)
    return Pairs(starts.clone(), ends.clone(), schedule.t_max, 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_first_guesses_have_the_calls_and_ends_of_the_plan(schedule):
    """On the grid with p = 1 the angles are even, on the last log(sigma/alpha) is; every guess
    spares a call at the start."""
    like = base(3, schedule).plan
    guesses = first_guesses(like, schedule)
    wide = float(schedule.rho(like.times[0])) > 25 and float(schedule.rho(like.times[-1])) < 0.1
    assert len(guesses) == 2 + wide
    if wide:
        levels = [float(schedule.rho(t)) for t in guesses[2].asked_at]
        assert levels == pytest.approx([25.0, math.sqrt(2.5), 0.1], rel=1e-6)
    for guess in guesses:
        assert (guess.nfe, guess.times[0], guess.times[-1]) == (3, like.times[0], like.times[-1])
    angles = [math.atan2(*map(float, reversed(schedule(t)))) for t in guesses[0].times]
    steps = [a - b for a, b in itertools.pairwise(angles)]
    assert steps == pytest.approx([steps[0]] * 4, rel=1e-6)


def test_the_fitted_table_betters_base_and_guesses():
    """Far: on other starts, a third of the median error of the best of them or less."""
    begin, denoiser, seen = base(3), DATA.denoiser(VP), []
    found, fit = restarts(
        begin, denoiser, endpoint(), pairs(128, 1), pairs(64, 2), watch=seen.append
    )
    other = pairs(128, 3)

    def error(plan):
        return float((sd.run(plan, denoiser, other.starts) - other.ends).norm(dim=1).median())

    assert found.nfe == 3
    assert error(found) < min(map(error, [begin.plan, *first_guesses(begin.plan, VP)])) / 3
    assert [p.iteration for p in seen] == list(range(1, len(seen) + 1))
    assert fit.iterations == len(seen)


def test_a_guess_that_is_right_already_wins():
    """On Gaussian data: a fitted plan given as a guess stays the best."""
    data = sd.problems.Gaussian([0.0, 0.0], 0.3)
    x = data.sample_marginal(64, *VP(1.0), generator=torch.Generator().manual_seed(0))
    given = Pairs(x, data.endpoint(x, VP, 1.0, 0.0), 1.0, 0.0)
    give = (base(1), data.denoiser(VP), endpoint(), given, given)
    right, fit = restarts(*give)
    assert fit.validation < 1e-20
    again, more = restarts(*give, guesses=iter([right]), usual=False)
    assert more.validation <= fit.validation
    assert again.nfe == 1


@pytest.mark.parametrize("after", [1, 14, 30])
def test_it_goes_on_after_a_break(after):
    """Bit for bit, in the first fit or a later one."""
    give = (base(1), DATA.denoiser(VP), endpoint(0.3), pairs(48, 1), pairs(32, 2))
    seen = []

    def watch(progress):
        seen.append(progress)
        if len(seen) == after:
            raise KeyboardInterrupt

    whole, fit = restarts(*give)
    with pytest.raises(KeyboardInterrupt):
        restarts(*give, watch=watch)
    resumed, again = restarts(*give, state=seen[-1].state)
    assert resumed == whole
    assert (again.validation, again.iterations) == (fit.validation, fit.iterations)


def test_a_start_without_signal():
    """alpha = 0 at the start: the base cannot move its first call, and is not tried."""
    flow = sd.FlowMatching()
    plan = sd.SOLVERS["ddim"](flow, [1.0, 0.5, 0.0])
    given = pairs(48, 0, flow)
    found, fit = restarts(
        Base(plan, flow, plan.times), DATA.denoiser(flow), endpoint(), given, given
    )
    assert (found.nfe, found.rows[0].t) == (2, 1.0)
    assert fit.validation < 0.1


def test_bad_input_is_refused():
    give = (DATA.denoiser(VP), endpoint(), pairs(16, 1), pairs(8, 2))
    plan = sd.SOLVERS["ddpm"](VP, sd.times.uniform_lambda(VP, 3, 0.99, 0.01))
    with pytest.raises(ValueError, match="draws noise"):
        restarts(Base(plan, VP, plan.times), *give)
    with pytest.raises(ValueError, match="asks 3 times, the plan 2"):
        restarts(base(2), *give, guesses=[base(3).plan])
    with pytest.raises(TypeError, match="usual = 'no'"):
        restarts(base(2), *give, usual="no")
    early = sd.SOLVERS["ddim"](VP, [1.0, 0.5, 0.1])
    with pytest.raises(ValueError, match=r"ends at t = 0.1, the plan at 0"):
        restarts(base(2), *give, guesses=[early])
    with pytest.raises(ValueError, match="16 starts to fit 19 free numbers"):
        restarts(base(4), *give)
