"""Tables grown call by call."""

import math

import pytest
import torch
from enumeration import SCHEDULES

import sde_diffusion as sd
from sde_diffusion.tuning.choices import Base
from sde_diffusion.tuning.growth import grow, one_call, split
from sde_diffusion.tuning.loss import endpoint
from sde_diffusion.tuning.pairs import Pairs

VP = sd.VPLinear()
DATA = sd.problems.ring()


def spared(schedule, nfe, **options):
    plan = sd.SOLVERS["angular"](schedule, sd.times.default(schedule, nfe + 1), **options)
    return sd.transform.analytic_first_step(plan, schedule)


def base(nfe, schedule=VP):
    plan = spared(schedule, nfe)
    return Base(plan, schedule, plan.times)


def pairs(n, seed):
    x = DATA.sample_marginal(n, *VP(1.0), generator=torch.Generator().manual_seed(seed))
    return Pairs(x, DATA.endpoint(x, VP, 1.0, 0.0), 1.0, 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_one_call_asks_where_normal_data_would_be(schedule):
    """The state asked about has the law of x_t for data N(0, I)."""
    plan = one_call(spared(schedule, 2), schedule)
    assert plan.nfe == 1
    line = plan.matrix()[0]
    radius = lambda t: math.hypot(*map(float, schedule(t)))
    start, asked = plan.rows[0].t, plan.asked_at[0]
    assert float(line[0]) * radius(start) == pytest.approx(radius(asked), rel=1e-9)
    assert schedule.t_clean <= asked < schedule.t_max


@pytest.mark.parametrize("gap", range(4))
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_call_that_is_not_used_changes_nothing(schedule, gap):
    """The old rows of the grown plan are the plan's, with 0 for the new output."""
    plan = spared(schedule, 3)
    grown = split(plan, schedule, gap)
    assert grown.nfe == 4
    old = [i for i in range(5) if i != gap]
    kept = [0, *(1 + j for j in range(4) if j != gap)]
    torch.testing.assert_close(grown.matrix()[old][:, kept], plan.matrix(), rtol=1e-12, atol=1e-12)
    assert not grown.matrix()[:, 1 + gap].any()
    noise = [float(schedule.rho(t)) for t in grown.asked_at]
    assert noise == sorted(noise, reverse=True)
    assert len(set(noise)) == 4


@pytest.mark.parametrize("gap", range(4))
def test_the_new_state_lies_on_the_chord(gap):
    plan = spared(VP, 3)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = sd.record(split(plan, VP, gap), DATA.denoiser(VP), x)
    angles = [math.atan2(*map(float, reversed(VP(float(t))))) for t in path.times]
    before, new, after = (path.states[gap + k] for k in range(3))  # alpha^2 + sigma^2 = 1
    w = (angles[gap] - angles[gap + 1]) / (angles[gap] - angles[gap + 2])
    assert 0 < w < 1
    torch.testing.assert_close(new, (1 - w) * before + w * after, rtol=1e-9, atol=1e-9)


def test_growing_betters_the_base_and_the_shorter_plan():
    train, validation = pairs(192, 1), pairs(96, 2)
    give = (DATA.denoiser(VP), endpoint(), train, validation)
    seen = []
    two, of_two = grow(base(2), *give, max_iterations=8, watch=seen.append)
    three, of_three = grow(base(3), *give, max_iterations=4, first=two)
    assert (two.nfe, three.nfe) == (2, 3)
    assert of_three.validation < of_two.validation
    x, end = validation.starts, validation.ends
    error = lambda plan: float((sd.run(plan, give[0], x) - end).norm(dim=1).median())
    assert error(two) < error(base(2).plan)
    assert error(three) < error(base(3).plan)
    assert [p.iteration for p in seen] == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("after", [2, 7, 12])
def test_growing_goes_on_after_a_break(after):
    """Bit for bit, in the first fit or a later one."""
    give = (base(2), DATA.denoiser(VP), endpoint(), pairs(64, 1), pairs(32, 2))
    seen = []

    def watch(progress):
        seen.append(progress)
        if len(seen) == after:
            raise KeyboardInterrupt

    whole, fit = grow(*give, max_iterations=3)
    with pytest.raises(KeyboardInterrupt):
        grow(*give, max_iterations=3, watch=watch)
    last = seen[-1]
    resumed, again = grow(*give, max_iterations=3, numbers=last.numbers, state=last.state)
    assert resumed == whole
    assert (again.validation, again.iterations) == (fit.validation, fit.iterations)


def test_a_start_without_signal_is_grown_from():
    """alpha = 0 at the start: the base cannot move its first call, and is not tried."""
    flow = sd.FlowMatching()
    plan = sd.SOLVERS["ddim"](flow, [1.0, 0.5, 0.0])
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = Pairs(x, DATA.endpoint(x, flow, 1.0, 0.0), 1.0, 0.0)
    found, fit = grow(
        Base(plan, flow, plan.times), DATA.denoiser(flow), endpoint(), given, given,
        max_iterations=2,
    )  # fmt: skip
    assert found.nfe == 2
    assert found.rows[0].t == 1.0
    assert fit.validation < 0.1


def test_a_stochastic_plan_is_refused():
    plan = sd.SOLVERS["ddpm"](VP, sd.times.uniform_lambda(VP, 3, 0.99, 0.01))
    with pytest.raises(ValueError, match="draws noise"):
        grow(Base(plan, VP, plan.times), DATA.denoiser(VP), endpoint(), pairs(8, 1), pairs(8, 2))
