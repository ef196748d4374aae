"""Denoisers that jump at known noise levels, and plans that begin anew there."""

import pytest
import torch
from guided_problem import BOTH, WANTED, states
from models import DOUBLE, VP

import sde_diffusion as sd
from sde_diffusion import guidance
from sde_diffusion.editing.replacement import Known, Replaced
from sde_diffusion.transform import afresh

ENDS = (2.0, 0.3)
C, U = WANTED.denoiser(VP), BOTH.denoiser(VP)


def free(scale=4.0):
    return guidance.classifier_free(C, U, scale=scale)


def interval(low=0.3, high=2.0, scale=4.0):
    return guidance.limited_interval(free(scale), low, high)


def grid(steps):
    return sd.times.default(VP, steps)


def drawn(denoiser, **options):
    start = states(200) * float(VP.sigma(VP.t_max))
    return sd.sample(denoiser, (200, 2), start=start, **options)


def far(a, b):
    return float((a - b).square().mean().sqrt())


def test_what_jumps_says_where_and_what_lies_around_it_too():
    assert C.jumps == free().jumps == guidance.cfg_zero_star(C, U, scale=2.0).jumps == ()
    assert interval().jumps == ENDS
    assert interval(0.0).jumps == (2.0,)
    assert interval(high=float("inf")).jumps == (0.3,)
    still = guidance.cfg_zero_star(C, U, scale=4.0, zero_above=0.5)
    assert still.jumps == (float(VP.rho(0.5)),)
    known = Known(torch.zeros(3, 2, dtype=DOUBLE), torch.tensor([True, False]))
    around = {
        "interval": guidance.limited_interval(still, 0.1, 1.0),
        "rescaled": guidance.rescale(still, 0.5, "data"),
        "clipped": guidance.static_thresholding(still),
        "autoguidance": guidance.autoguidance(still, U, scale=2.0),
        "composed": guidance.composed([still, C], U, scales=[1.0, 1.0]),
        "energy": guidance.universal(still, lambda d: d.sum(1)),
        "replaced": Replaced(still, known, torch.zeros(3, 2, dtype=DOUBLE)),
        "chosen": guidance.static_thresholding(still).select(torch.tensor([0])),
    }
    for name, denoiser in around.items():
        assert still.jumps[0] in denoiser.jumps, name
    assert len(around["interval"].jumps) == 3


def test_the_default_begins_anew_where_the_denoiser_jumps():
    """Against the limit of many steps: across the jumps it is 18 times as far."""
    limit = sd.run(afresh(sd.solvers.angular, VP, grid(400), ENDS), interval(), drawn_start())
    found, across = drawn(interval()), sd.run(sd.default_plan(VP, 20), interval(), drawn_start())
    assert far(found, limit) < 0.01 < 0.1 < far(across, limit)
    anew = sd.run(afresh(sd.solvers.angular, VP, grid(20), ENDS), interval(), drawn_start())
    torch.testing.assert_close(found, anew, rtol=0, atol=0)
    named = sd.run(sd.solvers.angular(VP, grid(20)), interval(), drawn_start())
    torch.testing.assert_close(drawn(interval(), solver="angular"), named, rtol=0, atol=0)


def drawn_start():
    return states(200) * float(VP.sigma(VP.t_max))


def test_a_still_start_too():
    times = grid(20)
    still = guidance.cfg_zero_star(C, U, scale=4.0, zero_above=times[6])
    limit = sd.run(afresh(sd.solvers.angular, VP, grid(400), still.jumps), still, drawn_start())
    across = sd.run(sd.default_plan(VP, 20), still, drawn_start())
    assert 4 * far(drawn(still), limit) < far(across, limit)


def test_the_default_is_as_it_was_where_there_is_no_room_or_no_jump():
    for steps in (1, 4, 5):
        assert sd.default_plan(VP, steps, jumps=ENDS).rows == sd.default_plan(VP, steps).rows
    plain = sd.default_plan(VP, 8)
    for jumps in ((), (1e9,), (1.0, 1.001)):  # none, none inside, two nearest to one point
        assert sd.default_plan(VP, 8, jumps=jumps).rows == plain.rows
    drawn(interval(1.0, 1.001), steps=8)
    assert sd.default_plan(VP, 6, jumps=ENDS).nfe == 6
    from sde_diffusion.sample import plan_for

    assert plan_for(VP, steps=9, jumps=ENDS).name == sd.default_plan(VP, 9, jumps=ENDS).name


def test_what_afresh_does_not_take():
    solver = sd.solvers.angular
    for attempt, message in (
        (lambda: afresh("angular", VP, grid(9), [1.0]), "give the function, as sd.solvers.angular"),
        (lambda: afresh(solver, VP, grid(9), 0.3), r"levels = 0.3 must be a list"),
        (lambda: afresh(solver, grid(9), VP, [1.0]), "schedule is Tensor, not a Schedule"),
        (lambda: afresh(solver, VP, grid(9), ["a"]), "a level = 'a' must be a number"),
    ):
        with pytest.raises(TypeError, match=message):
            attempt()
    levels = torch.tensor([0.3, 2.0], dtype=DOUBLE)
    assert afresh(solver, VP, grid(9), levels).rows == afresh(solver, VP, grid(9), ENDS).rows
