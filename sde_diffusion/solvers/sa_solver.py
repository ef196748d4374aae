r"""SA-Solver: stochastic Adams predictor and corrector, with a stochasticity that varies in time.

The reverse SDEs with one and the same marginals, from the probability-flow ODE (tau = 0) over
Anderson's reverse SDE (tau = 1) to more noise, are

    dx = [f x - (1 + tau(t)^2)/2 g^2 score] dt + tau(t) g dw,

whose exact step is the formula of the module `exponential`, with tau constant over each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from .exponential import weights
from .multistep import Row, check_order, multistep
from .rows import bh1
from .solver import Claim, solver

VARIANTS: dict[str, Row] = {"exact": weights, "bh1": bh1}


@solver(
    "Xue et al. 2023, arXiv:2309.05019",
    Claim(2, point_exact=True, strong=1.0),
    Claim(2, {"variant": "bh1"}, point_exact=True, strong=1.0),
    Claim(2, {"predictor": 3, "corrector": 3}, point_exact=True, strong=1.0),
    Claim(2, {"predictor": 2, "corrector": 0}, point_exact=True, strong=1.0),
    Claim(1, {"corrector": 1}, point_exact=True, strong=1.0),
    Claim(2, {"mode": "pece"}, point_exact=True, strong=1.0),
    Claim(2, {"tau": 0.5, "variant": "bh1"}, point_exact=True, strong=1.0),
    Claim(2, {"prediction": "noise"}, strong=1.0),
    Claim(3, {"tau": 0.0, "predictor": 2, "corrector": 3}, point_exact=True),
    Claim(4, {"tau": 0.0, "predictor": 3, "corrector": 4, "first_steps": "full"}, point_exact=True),
)
def sa_solver(
    schedule: Schedule,
    times: list[Scalar],
    predictor: int = 2,
    corrector: int = 2,
    tau: float | Callable[[Scalar], Scalar] = 1.0,
    tau_range: tuple[float, float] | None = None,
    prediction: str = "data",
    variant: str = "exact",
    mode: str = "pec",
    first_steps: str = "lower",
    lower_last: bool = False,
) -> Plan:
    """SA-Solver: Adams-Bashforth predictor, Adams-Moulton corrector, one draw of noise for both.

    x_s = (sigma_s/sigma_t) e^{-tau^2 h} x_t + sum_j b_j d_j + sigma_s sqrt(1 - e^{-2 tau^2 h}) z,
    b_j the exact integrals of the Lagrange polynomials through the last outputs (predictor), and
    through the output at the predicted state and the last ones (corrector). That output is kept,
    so the corrector costs no call. The last step is not corrected, nor one of infinite h.

    For tau = 0 the order is min(corrector, predictor + 1), or `predictor` without a corrector.
    For tau > 0 the weak order is 2 at most (1 with corrector = 1), whatever the two numbers: the
    polynomials do not see how the output moves with the noise inside a step. Among them,
    corrector = 2, the trapezoidal rule, has by far the smallest error in the variance.

    Xue et al., "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models", 2023,
    arXiv:2309.05019, section 5 and algorithm 1.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; at least `predictor` steps. The end may have sigma = 0 (no noise,
            order 1), the start alpha = 0 with data prediction.
        predictor: number of outputs of the predictor, 1 to 8.
        corrector: number of outputs of the corrector, the new one among them, 1 to 8; 0: none.
        tau: stochasticity >= 0, or a function of time t; a step has the value at its noisier end.
        tau_range: tau counts where sigma/alpha lies in this range and is 0 elsewhere, as the paper
            sets it, e.g. tau=1.0, tau_range=(0.05, 1.0); default: everywhere.
        prediction: "data" or "noise".
        variant: "exact", or "bh1": steps through two outputs have the simplified row of the
            authors' code, h/2 for the integral of the slope (as in `unipc`).
        mode: "pec", or "pece" to ask the network again at the corrected state: two calls a step.
        first_steps: "lower", or for tau = 0 "full", as for `adams`.
        lower_last: end with steps of orders ..., 2, 1.

    Raises:
        ValueError: predictor outside 1 .. 8 or above the number of steps; corrector outside
            0 .. 8; tau negative or not finite; an empty tau_range; a wrong word; pece without a
            corrector.
    """
    look_up("prediction", prediction, {"data": 0, "noise": 0})
    row = look_up("variant", variant, VARIANTS)
    check_order(predictor, len(times) - 1, "predictor")
    check_order(corrector, 8, "corrector", least=0)
    if mode == "pece" and not corrector:
        raise ValueError("mode = 'pece' asks again after correcting: it needs corrector >= 1")
    if tau_range is not None and not (
        len(tau_range) == 2
        and all(isinstance(level, int | float) for level in tau_range)
        and 0 <= tau_range[0] < tau_range[1]
    ):
        raise ValueError(f"tau_range = {tau_range} must be (low, high), 0 <= low < high")

    def tau_at(t: Scalar) -> Scalar:
        value = tau(t) if callable(tau) else tau
        if not 0 <= value < math.inf:
            raise ValueError(f"tau = {value} must be at least 0: 0 is the ODE, 1 the reverse SDE")
        if tau_range and not tau_range[0] <= schedule.rho(t) <= tau_range[1]:
            return 0.0
        return value

    stochasticity = 0.0 if not callable(tau) and tau == 0 else tau_at
    return multistep(
        schedule,
        times,
        predictor,
        prediction,
        "lambda",
        stochasticity,
        first_steps,
        lower_last,
        row,
        corrector,
        mode,
    )
