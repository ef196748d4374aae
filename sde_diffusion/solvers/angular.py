r"""Adams methods on the angular velocity: the probability flow as a rotation of signal into noise.

With r = hypot(alpha, sigma) and theta = arctan(sigma/alpha), y = x/r obeys, on every schedule,

    dy/dtheta = w = cos(theta) E[eps | x] - sin(theta) E[x_0 | x],    0 <= theta <= pi/2,

which is regular at both ends, alpha = 0 and sigma = 0. Near noise w is -D against 1/rho, near data
it is eps against rho: the outputs that vary least there. On standard normal data w = 0.
"""

from __future__ import annotations

from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from .multistep import multistep
from .solver import Claim, solver

FEW, MANY = 8, 20  # steps from which a corrector helps, and from which order 4 does


@solver(
    "Salimans & Ho 2022, arXiv:2202.00512",
    Claim(4, warm_up=3),
    Claim(
        3,
        {"order": 3, "corrector": 0, "lower_last": False},
        warm_up=2,
        exact=("angular", "angle", 3),
    ),
    Claim(2, {"order": 2, "corrector": 0, "lower_last": False}, exact=("angular", "angle", 2)),
    Claim(
        4,
        {"order": 4, "corrector": 0, "first_steps": "full", "lower_last": False},
        exact=("angular", "angle", 4),
    ),
    Claim(3, {"order": 2, "corrector": 3, "lower_last": False}, exact=("angular", "angle", 2)),
    Claim(
        4,
        {"order": 3, "corrector": 4, "lower_last": False},
        warm_up=3,
        exact=("angular", "angle", 3),
    ),
)
def angular(
    schedule: Schedule,
    times: list[Scalar],
    order: int | None = None,
    corrector: int | None = None,
    first_steps: str = "lower",
    lower_last: bool | None = None,
) -> Plan:
    """Adams-Bashforth in the angle: w as a polynomial in theta through its last `order` values.

    x_s = (r_s/r_t) x_t + r_s sum_j b_j w(theta_j), with b_j the integral of the j-th Lagrange
    polynomial from theta_t to theta_s. A corrector repeats the step with the output at s among
    the nodes (Adams-Moulton), at no network call.

    The angle and w are those of Salimans & Ho, "Progressive distillation for fast sampling of
    diffusion models", 2022, arXiv:2202.00512, appendix D, there for alpha^2 + sigma^2 = 1; the
    multistep method is Adams's (Hairer, Norsett & Wanner, 1993, section III.1).

    What is left at None is chosen by the number of steps: order 3 below 20 steps and 4 from there;
    below 8 steps no corrector, which would reach too far back, from 8 on one of an output more
    than the order; from 8 to 19 steps, the last steps have lower orders, so that the result is
    close to the network's last output; from 20 on, the step to sigma = 0, which has no corrector,
    takes as many outputs as the corrector does. On closed-form data each was the best of its range.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha may be 0 at the start, sigma at the end.
        order: 1 to 8, the number of past outputs; None: 3 below 20 steps (or fewer, where there
            are fewer steps), 4 from there.
        corrector: the number of outputs of the corrector, the new one among them; 0: none; None:
            one more than the order (at most 8) from 8 steps on, none below.
        first_steps: as for `adams`.
        lower_last: as for `adams`; None: from 8 to 19 steps.

    Raises:
        ValueError: order above the number of steps or outside 1 .. 8; a wrong word.
    """
    steps = len(times) - 1
    order = min(3 if steps < MANY else 4, steps) if order is None else order
    corrector = (min(order + 1, 8) if steps >= FEW else 0) if corrector is None else corrector
    lower_last = FEW <= steps < MANY if lower_last is None else lower_last
    return multistep(
        schedule,
        times,
        order,
        "angular",
        "angle",
        first_steps=first_steps,
        lower_last=lower_last,
        corrector=corrector,
        last=max(order, corrector),
    )
