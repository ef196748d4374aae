"""Starter rows and last steps of multistep methods: every one that has them, by enumeration."""

import inspect
import math

import pytest
import torch
from enumeration import smooth_grid

import sde_diffusion as sd
from sde_diffusion.editing.replacement import forgets
from sde_diffusion.solvers import adams, ddim, deis, er_sde, ipndm, lms, velocity_adams
from sde_diffusion.solvers.exponential import weights

VP, EDM = sd.VPLinear(), sd.EDM()


def options_of(name):
    return inspect.signature(sd.SOLVERS[name]).parameters


def taking(option):
    return [name for name in sd.SOLVERS if option in options_of(name)]


def test_every_method_with_a_past_can_take_its_last_steps_without():
    """But for O-BELM, which could not be run backwards then, and pairs of steps."""
    grid = smooth_grid(VP, 12)
    multistep = []
    for name, make in sd.SOLVERS.items():
        plan = make(VP, grid)
        points = zip(plan.rows, forgets(plan), strict=True)
        if not all(forgotten for row, forgotten in points if row.kind == "denoise"):
            multistep.append(name)
    assert sorted(multistep) == sorted([*taking("lower_last"), "o_belm", "richardson"])


@pytest.mark.parametrize("name", taking("lower_last"))
def test_lower_last_changes_the_last_steps_alone_and_ends_with_order_one(name):
    grid = smooth_grid(VP, 12)
    plan = sd.SOLVERS[name](VP, grid, lower_last=True)
    whole = sd.SOLVERS[name](VP, grid, lower_last=False)
    assert plan.asked_at == whole.asked_at
    assert not plan.equals(whole, 1e-6)
    before = [i for i, t in enumerate(plan.asked_at) if t > float(grid[9])]  # 4 steps or more left
    assert torch.equal(plan.matrix()[before], whole.matrix()[before])
    lowest = {k: 1 for k in ("order", "predictor") if k in options_of(name)}
    one = ddim(VP, grid[-2:]) if name == "pndm" else sd.SOLVERS[name](VP, grid[-2:], **lowest)
    end, alone = plan.rows[-1], one.rows[-1]
    assert end.d.keys() == {plan.nfe - 1}  # the last output alone
    assert sum(end.d.values()) == pytest.approx(alone.d[0], rel=1e-9)
    assert sum(end.x.values()) == pytest.approx(sum(alone.x.values()), rel=1e-9)


def test_methods_that_are_equal_stay_so_with_lower_last_steps():
    grid, lower = smooth_grid(VP, 8), {"lower_last": True}
    rho = {"prediction": "noise", "variable": "rho"}
    expected = lms(VP, grid, **lower)
    assert expected.equals(adams(VP, grid, order=4, **rho, **lower))
    assert expected.equals(deis(VP, grid, order=4, variable="rho", **lower))
    assert expected.equals(ipndm(VP, grid, coefficients="variable", **lower))
    phi = {"prediction": "velocity", "variable": "phi"}
    assert velocity_adams(VP, grid, **lower).equals(adams(VP, grid, **phi, **lower))
    assert er_sde(VP, grid, phi="ode", **lower).equals(adams(VP, grid, variable="rho", **lower))
    even = torch.linspace(5, 1, 8, dtype=torch.float64)  # in rho
    assert ipndm(EDM, even, **lower).equals(lms(EDM, even, **lower))


@pytest.mark.parametrize("name", taking("first_steps"))
def test_a_full_start_is_claimed_at_the_order_of_the_method(name):
    """So that certificates measure it: the order from the solver's own start is that claimed."""
    full = [c for c in sd.CLAIMS[name] if c.options.get("first_steps") == "full"]
    assert full
    assert all(claim.usual_order == claim.order >= 3 for claim in full)


@pytest.mark.parametrize("name", taking("first_steps"))
def test_a_full_start_adds_calls_in_the_first_steps_alone(name):
    """With the last steps lowered as well; those would need no more outputs than there are."""
    grid = smooth_grid(VP, 8)
    options = {"tau": 0.0, "predictor": 3} if name == "sa_solver" else {}
    options |= {"order": 3} if name == "unipc" else {}
    for lower in (False, True):
        make = sd.SOLVERS[name]
        full = make(VP, grid, first_steps="full", lower_last=lower, **options)
        usual = make(VP, grid, lower_last=lower, **options)
        extra = list(full.asked_at)
        for t in usual.asked_at:
            extra.remove(t)
        assert extra
        assert min(extra) >= float(grid[3])


def latest(schedule, times, order):
    """The nodes of the last step as in the papers: {time: coefficient of its output}."""
    t, s = times[-2:]
    nodes = times[-2 : -2 - order : -1]
    row = weights(schedule, t, s, nodes, "noise", "rho")
    return {u: -b / u for u, b in zip(nodes, row.outputs, strict=True)}  # eps = (x - D)/rho


def test_the_last_step_goes_through_the_latest_outputs_where_that_is_asked_for():
    times = [3.0, 2.5, 2.0, 1.6, 1.5, 1.4, 1.0, 0.0]
    plan = lms(EDM, times, last_step="latest")
    expected = latest(EDM, times, 4)
    assert expected.keys() == {1.0, 1.4, 1.5, 1.6}
    for j, c in plan.rows[-1].d.items():
        assert float(c) == pytest.approx(expected[times[j]], rel=1e-9)
    assert not plan.equals(lms(EDM, times), 1e-3)


def test_presets_of_peers_take_the_latest_outputs():
    """At 60 of Karras' steps, the last is eight times as long as the one before it."""
    preset = sd.preset("k-diffusion lms Karras")
    schedule = sd.EDM(0.03, 15.0)
    grid = preset.times(schedule, 60).tolist()
    expected = latest(schedule, grid, 4)
    for j, c in preset.plan(schedule, 60).rows[-1].d.items():
        assert float(c) == pytest.approx(expected[grid[j]], rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.1, 0.7])
def test_rounding_does_not_decide_which_outputs_the_last_step_takes(scale):
    """Outputs exactly half the step apart are taken, whichever way their times are rounded."""
    times = [scale * t for t in (1.0, 0.8, 0.6, 0.4, 0.0)]
    plan = velocity_adams(sd.FlowMatching(), times)
    assert plan.rows[-1].d.keys() == {1, 2, 3}


def test_gradients_reach_the_times_through_the_last_step():
    """Where it takes outputs apart: the angular solver at 24 steps to sigma = 0."""
    schedule = sd.VPLinear()
    grid = sd.times.default(schedule, 24)
    step = 1e-6 * grid * torch.sin(torch.arange(25.0, dtype=torch.float64))
    step[0] = 0.0

    def value(times):
        return sd.SOLVERS["angular"](schedule, times).law(schedule, 0.3, 0.2)[1]

    times = grid.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(times), times)
    quotient = (value(grid + step) - value(grid - step)) / 2
    assert math.isfinite(float(gradient.abs().sum()))
    assert float(gradient @ step) == pytest.approx(float(quotient), rel=1e-4)
