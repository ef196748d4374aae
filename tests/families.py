"""Families of plans on several schedules, and what every one of them is held to."""

import torch

DOUBLE = torch.float64


def functional(plan):
    """A number that depends on every coefficient and time of a plan."""
    matrix = plan.matrix()
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(matrix.shape, generator=generator, dtype=DOUBLE)
    times = sum(
        (i + 1) * torch.as_tensor(row.t, dtype=DOUBLE).sin() for i, row in enumerate(plan.rows)
    )
    return (matrix * weights).sum() + times


def check_gradient(family, numbers):
    """The gradient of the table with respect to every number is that of finite differences."""
    numbers = numbers.clone().requires_grad_()
    functional(family.build(numbers)).backward()
    assert numbers.grad.isfinite().all()
    assert (numbers.grad != 0).all(), "a number that nothing depends on"
    step = 1e-5
    for i in range(len(numbers)):
        e = torch.zeros_like(numbers)
        e[i] = step
        up, down = (functional(family.plan(numbers.detach() + h)) for h in (e, -e))
        quotient = (up - down) / (2 * step)
        assert abs(numbers.grad[i] - quotient) < 1e-6 * numbers.grad.abs().max(), family.names[i]


def away(family, size=0.2, seed=0):
    """Numbers at some distance from the start."""
    generator = torch.Generator().manual_seed(seed)
    return family.start + size * torch.randn(len(family.start), generator=generator, dtype=DOUBLE)
