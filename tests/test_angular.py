"""Adams methods in the angle: what they are exact for, at both ends and on every schedule."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.solvers import angular
from sde_diffusion.solvers.exponential import weights

VP, FLOW, EDM = sd.VPLinear(), sd.FlowMatching(), sd.EDM()
DOUBLE = torch.float64


def times_of(schedule, angles):
    """The times at which arctan(sigma/alpha) has these values."""
    return [schedule.time_of(-math.log(math.tan(a))) for a in angles]


@pytest.mark.parametrize("options", [{}, {"order": 1}, {"order": 3, "corrector": 4}], ids=str)
@pytest.mark.parametrize("schedule", [VP, FLOW, EDM], ids=repr)
def test_standard_normal_data_are_exact(schedule, options):
    """w = 0 for data N(0, I): the flow is x_s = (r_s/r_t) x_t, from pure noise to sigma = 0."""
    start = 50.0 if isinstance(schedule, sd.EDM) else 1.0
    plan = angular(schedule, [start, 0.6 * start, 0.3 * start, 0.1 * start, 0.0], **options)
    mean, variance = plan.law(schedule, 0.0, 1.0)
    assert float(mean) == pytest.approx(0.0, abs=1e-14)
    assert float(variance) == pytest.approx(1.0, rel=1e-12)


def test_even_angles_have_the_textbook_weights():
    """On even angles the weights are those of Adams-Bashforth and Adams-Moulton of order 3."""
    step = 0.2
    t3, t2, t1, s = times_of(VP, [1.2, 1.0, 0.8, 0.6])
    explicit = weights(VP, t1, s, [t1, t2, t3], "angular", "angle").outputs
    assert explicit == pytest.approx([-step * c / 12 for c in (23, -16, 5)], rel=1e-9)
    implicit = weights(VP, t1, s, [s, t1, t2], "angular", "angle").outputs
    assert implicit == pytest.approx([-step * c / 12 for c in (5, 8, -1)], rel=1e-9)


def test_schedules_of_the_same_noise_levels_are_one_sampler():
    """In y = x/alpha the table is the same on every schedule."""
    angles = [1.5, 1.2, 0.8, 0.4, 0.1]
    ends = []
    for schedule in (VP, FLOW, EDM):
        grid = times_of(schedule, angles)
        plan = angular(schedule, grid, corrector=4)
        table = plan.matrix()
        alphas = torch.tensor([float(schedule.alpha(t)) for t in grid], dtype=DOUBLE)
        ends.append((table[:, 1:] / alphas[:, None], table[:, 0] * alphas[0] / alphas))
    for outputs, start in ends[1:]:
        torch.testing.assert_close(outputs, ends[0][0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(start, ends[0][1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("variable", ["angle", "phi", "t"])
def test_a_start_without_signal_is_the_limit(variable):
    """Flow matching from t = 1 (alpha = 0) is the limit of starts just below."""
    make = lambda t: weights(FLOW, 0.7, 0.4, [0.7, t], "angular", variable)
    torch.testing.assert_close(make(1.0).outputs, make(1 - 1e-9).outputs, rtol=1e-7, atol=1e-9)
    make = lambda t: weights(FLOW, t, 0.4, [t, 0.999999999], "angular", variable)
    torch.testing.assert_close(
        sum(make(1.0).outputs), sum(make(1 - 1e-8).outputs), rtol=1e-6, atol=1e-8
    )


def test_gradients_reach_the_times():
    """d(weights)/d(times) by autograd is the difference quotient."""

    def total(grid):
        plan = angular(VP, grid, corrector=3)
        return plan.matrix()[-1, 2]

    grid = torch.tensor([0.9, 0.7, 0.4, 0.2], dtype=DOUBLE, requires_grad=True)
    total(grid).backward()
    h = 1e-6
    for k in range(4):
        shift = torch.zeros(4, dtype=DOUBLE)
        shift[k] = h
        with torch.no_grad():
            quotient = (total(grid.detach() + shift) - total(grid.detach() - shift)) / (2 * h)
        assert float(grid.grad[k]) == pytest.approx(float(quotient), rel=1e-5, abs=1e-8)


def test_noise_is_refused():
    with pytest.raises(ValueError, match="0 for velocity and angular"):
        weights(VP, 0.5, 0.4, [0.5], "angular", "angle", tau=1.0)


def test_the_highest_order_has_a_corrector_too():
    """The default corrector has one output more than the predictor, and no more than 8."""
    grid = sd.times.uniform(sd.VPLinear(), 12)
    make = sd.solvers.angular
    highest = make(sd.VPLinear(), grid, order=8, corrector=8)
    assert make(sd.VPLinear(), grid, order=8).equals(highest)


def start_error(schedule, steps, make, **options):
    """The median error of the end, relative, on a 2-D mixture from pure noise."""
    data = sd.problems.two_gaussians()
    start = torch.Generator().manual_seed(0)
    x = torch.randn(32, *data.event_shape, dtype=DOUBLE, generator=start)
    exact = data.endpoint(x, schedule, schedule.t_max, schedule.t_clean)
    grid = sd.times.default(schedule, steps, t_end=schedule.t_clean)
    found = sd.run(make(schedule, grid, **options), data.denoiser(schedule), x)
    return float(((found - exact).norm(dim=1) / exact.norm(dim=1)).median())


@pytest.mark.parametrize(
    ("make", "options", "order"),
    [
        (angular, {}, 2.8),
        (angular, {"first_steps": "full", "corrector": 0}, 3.5),
        (sd.solvers.velocity_adams, {"order": 4, "first_steps": "full"}, 3.5),
    ],
    ids=["corrected", "full", "velocity"],
)
@pytest.mark.parametrize("schedule", [FLOW, sd.ZeroTerminalSNR(VP)], ids=repr)
def test_a_start_without_signal_keeps_the_order(schedule, make, options, order):
    """From alpha = 0 the first step is corrected, or has inner nodes: w is regular there."""
    coarse, fine = (start_error(schedule, steps, make, **options) for steps in (40, 160))
    assert math.log2(coarse / fine) / 2 > order


def test_a_full_start_without_signal_is_refused_where_it_has_no_limit():
    """In lambda the first step from alpha = 0 has order 1 whatever its nodes."""
    grid = sd.times.default(FLOW, 10)
    for make in (sd.solvers.adams, sd.solvers.unipc):
        with pytest.raises(ValueError, match="where alpha = 0: data prediction in lambda"):
            make(FLOW, grid, first_steps="full")
        make(FLOW, grid)
