r"""One scalar a network call: the output is carried on from the one before it.

Wherever a plan uses the output d_j, use in its place

    d_j + l_j (d_j - d_{j-1}),    j = 1 .. NFE - 1,

d_{j-1} the output of the call before. The weights of the two outputs still sum to that of d_j:
for data in one point every output is that point, so the plan keeps its exactness there, whatever
the scalars. With the noise eps = (x - alpha d)/sigma in the place of d, as the paper has it for
networks that predict the noise,

    d_j - l_j (sigma_j/alpha_j) (eps_j - eps_{j-1}),

which is exact for a point where the plan is deterministic, for eps is then constant too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..form import Form
from ..names import look_up
from ..plan import Plan
from ..schedule import Schedule
from .family import Family
from .rewrite import substitute


def scalars(plan: Plan, schedule: Schedule, prediction: str = "data") -> Family:
    """Distilled-ODE solvers: one scalar a network call, on any plan.

    d_j + l_j (d_j - d_{j-1}), or the same of the noise.

    Kim, Tang & Yu, "Distilling ODE solvers of diffusion models into smaller steps", 2024,
    arXiv:2309.16421. There each scalar is fitted to its own step; here all at once, to the loss.

    Args:
        plan: any solver's table of two network calls or more.
        schedule: the schedule that it was made for.
        prediction: what is carried on, "data" or "noise".

    Returns:
        A family of NFE - 1 numbers l_j; all 0 is the plan itself.

    Raises:
        ValueError: a plan of one call or for another schedule; an unknown prediction; noise where
            a call after the first has alpha = 0.
    """
    plan.check_schedule(schedule)
    look_up("prediction", prediction, {"data": 0, "noise": 0})
    if plan.nfe < 2:
        raise ValueError(
            f"{plan.name} has one network call, and the first has none before it: nothing is free"
        )
    asked = [i for i, row in enumerate(plan.rows) if row.asks]
    scales = [schedule(t) for t in plan.asked_at]
    if prediction == "noise" and not all(alpha_t > 0 for alpha_t, _ in scales[1:]):
        raise ValueError(
            f"{plan.name} asks at alpha = 0 after its first call, where the noise says nothing of "
            "the data: take prediction='data'"
        )

    def noise(j: int) -> Form:
        alpha_t, sigma_t = scales[j]
        return Form({("x", asked[j]): 1 / sigma_t, ("d", j): -alpha_t / sigma_t})

    def change(j: int) -> Form:
        if prediction == "data":
            return Form({("d", j): 1.0, ("d", j - 1): -1.0})
        alpha_t, sigma_t = scales[j]
        return (noise(j) - noise(j - 1)) * (-sigma_t / alpha_t)

    changes = [change(j) for j in range(1, plan.nfe)]
    name = f"scalars({plan.name}, prediction={prediction!r})"

    def build(numbers: Tensor) -> Plan:
        pairs = enumerate(zip(changes, numbers, strict=True), 1)
        mixed = {j: Form({("d", j): 1.0}) + l_j * difference for j, (difference, l_j) in pairs}
        return substitute(plan, mixed, name)

    names = tuple(f"l{j}" for j in range(1, plan.nfe))
    return Family("scalars", build, torch.zeros(plan.nfe - 1, dtype=torch.float64), names)
