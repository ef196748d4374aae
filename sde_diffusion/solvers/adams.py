r"""Exponential Adams methods: the formula of `exponential` with past grid points as nodes.

One piece of code for every order, prediction (data, noise, velocity), variable of the interpolant
(lambda, rho, phi, t) and stochasticity tau. DEIS is its case of noise prediction in t or rho; a
method of order 1 is DDIM.
"""

from __future__ import annotations

from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from .multistep import multistep
from .solver import Claim, solver


@solver(
    "Xue et al. 2023, arXiv:2309.05019",
    Claim(3, warm_up=2, point_exact=True, exact=("data", "lambda", 3)),
    Claim(4, {"order": 4, "first_steps": "full"}, point_exact=True, exact=("data", "lambda", 4)),
    Claim(3, {"first_steps": "full"}, point_exact=True, exact=("data", "lambda", 3)),
    Claim(2, {"order": 2}, point_exact=True, exact=("data", "lambda", 2)),
    Claim(3, {"prediction": "noise"}, 2, True, ("noise", "lambda", 3)),
    Claim(3, {"prediction": "velocity", "variable": "phi"}, 2, True, ("velocity", "phi", 3)),
    Claim(2, {"order": 2, "tau": 1.0}, point_exact=True, strong=1.0),
    Claim(2, {"tau": 1.0}, point_exact=True, strong=1.0),
)
def adams(
    schedule: Schedule,
    times: list[Scalar],
    order: int = 3,
    prediction: str = "data",
    variable: str = "lambda",
    tau: float = 0.0,
    first_steps: str = "lower",
    lower_last: bool = False,
    last_step: str = "apart",
) -> Plan:
    """Exponential Adams-Bashforth: the output as a polynomial through its last `order` values.

    x_s = a x_t + sum_j b_j output(t_j) + c z, with b_j the exact integral of the j-th Lagrange
    polynomial against the kernel of the module `exponential`.

    Xue et al., "SA-Solver", 2023, arXiv:2309.05019, section 4; Zhang & Chen, "DEIS", 2023,
    arXiv:2204.13902, eq. 15; Hochbruck & Ostermann, "Exponential integrators", 2010, section 2.5.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; at least `order` steps.
        order: 1 to 8, the number of past outputs; 1 is DDIM.
        prediction: what is interpolated: "data", "noise" or "velocity" (eps - D).
        variable: in which it is a polynomial: "lambda", "rho" (sigma/alpha), "phi"
            (sigma/(alpha + sigma)) or "t".
        tau: stochasticity; 0 is the probability-flow ODE, 1 the reverse SDE.
        first_steps: "lower": they have orders 1, 2, ...; an order-1 step caps the order of the
            whole at 2. "full": extra network calls inside the first steps remove that cap.
        lower_last: end with steps of orders ..., 2, 1 (what some libraries do below 10 or 15
            steps, here at any number).
        last_step: the outputs of a step to sigma = 0: "apart", the latest that lie at least half
            its length apart, so that many steps amplify rounding far less; "latest", as in the
            papers. With data prediction or in lambda that step takes one output, either way.

    Raises:
        ValueError: order above the number of steps or outside 1 .. 8; a wrong word; tau < 0, or
            with velocity prediction or a full start; a full start at alpha = 0, but for velocity
            prediction in phi or t.
    """
    return multistep(
        schedule,
        times,
        order,
        prediction,
        variable,
        tau,
        first_steps,
        lower_last,
        last_step=last_step,
    )


@solver(
    "Zhang & Chen 2023, arXiv:2204.13902",
    Claim(3, warm_up=2, point_exact=True, exact=("noise", "t", 3)),
    Claim(1, {"order": 1}, point_exact=True, exact=("noise", "t", 1)),
    Claim(2, {"order": 2}, point_exact=True, exact=("noise", "t", 2)),
    Claim(4, {"order": 4, "first_steps": "full"}, point_exact=True, exact=("noise", "t", 4)),
    Claim(2, {"order": 2, "variable": "rho"}, point_exact=True, exact=("noise", "rho", 2)),
    Claim(3, {"variable": "rho"}, 2, True, ("noise", "rho", 3)),
    Claim(
        4, {"order": 4, "variable": "rho", "first_steps": "full"}, None, True, ("noise", "rho", 4)
    ),
)
def deis(
    schedule: Schedule,
    times: list[Scalar],
    order: int = 3,
    variable: str = "t",
    first_steps: str = "lower",
    lower_last: bool = False,
    last_step: str = "apart",
) -> Plan:
    """DEIS, tAB or rhoAB: eps as a polynomial in t or in rho through its last values.

    Zhang & Chen, "Fast sampling of diffusion models with exponential integrator", 2023,
    arXiv:2204.13902, eq. 15 (tAB) and section 3.3 (rhoAB). The paper's tABk has order k + 1.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
        order: 1 to 8; 1 is DDIM.
        variable: "t" (tAB) or "rho" (rhoAB).
        first_steps, lower_last, last_step: as for `adams`.

    Raises:
        ValueError: as for `adams`.
    """
    look_up("variable", variable, {"t": 0, "rho": 0})
    return multistep(
        schedule,
        times,
        order,
        "noise",
        variable,
        first_steps=first_steps,
        lower_last=lower_last,
        last_step=last_step,
    )
