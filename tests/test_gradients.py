"""Gradients with respect to the times: those of finite differences, also where an end is exact."""

import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_solver

import sde_diffusion as sd

DOUBLE = torch.float64


def functional(plan):
    """A number that depends on every coefficient: of the map, and of the law of the noise."""
    matrix, n = plan.matrix(), 1 + plan.nfe
    generator = torch.Generator().manual_seed(1)
    gram = matrix[:, n:] @ matrix[:, n:].T
    weights = [
        torch.randn(m.shape, generator=generator, dtype=DOUBLE) for m in (matrix[:, :n], gram)
    ]
    return (matrix[:, :n] * weights[0]).sum() + (gram * weights[1]).sum()


@each(("name", "options"), every_solver())
@pytest.mark.parametrize("schedule", ["vp", "flow"])
def test_gradients_of_the_inner_times_up_to_exact_ends(name, options, schedule):
    """From t_max to sigma = 0: ends stay, and no infinite slope there reaches another time."""
    schedule = SCHEDULES[schedule]
    points = [schedule.t_max, 0.8, 0.55, 0.4, 0.25, schedule.t_min]
    make = lambda times: sd.SOLVERS[name](schedule, times, **options)
    try:
        make(points)
    except ValueError:  # a method that cannot start at alpha = 0
        points[0] = 0.95
    if options.get("coefficients") == "shipped":
        points[0] = 0.95  # its slips have no limit at alpha = 0
    times = torch.tensor(points, dtype=DOUBLE, requires_grad=True)
    functional(make(times)).backward()
    assert times.grad.isfinite().all(), times.grad
    assert times.grad[-1] == 0
    inner = times.grad[1:-1]
    way = [1.0, -0.6, 0.8, -0.4]  # sees every time: enough, and a quotient is two tables
    up, down = (
        [points[0], *(t + h * w for t, w in zip(points[1:-1], way, strict=True)), points[-1]]
        for h in (1e-5, -1e-5)
    )
    quotient = (functional(make(up)) - functional(make(down))) / 2e-5
    slope = (inner * torch.tensor(way, dtype=DOUBLE)).sum()
    assert abs(slope - quotient) < 1e-5 * times.grad.abs().max()
