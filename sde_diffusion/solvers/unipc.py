r"""UniPC: a predictor and a corrector of any order, for the price of the predictor.

With h = lambda_s - lambda_t, outputs m_0 at t and m_i at lambda_t + r_i h, the step is the exact
first-order one plus B(h) sum_i (a_i / r_i)(m_i - m_0), with a_i from the condition that the sum
integrates polynomials in lambda. Where that condition is solved exactly, B cancels: the row is
the exponential Adams row of `exponential.weights`. It is left unsolved in one case, two outputs,
where a = 1/2 is close enough; there B(h) = h ("bh1") and B(h) = e^h - 1 ("bh2") differ, and both
differ from the exact integral ("vary_coeff").
"""

from __future__ import annotations

from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from .exponential import weights
from .multistep import Row, multistep
from .rows import bh1, midpoint
from .solver import Claim, solver

VARIANTS: dict[str, Row] = {"bh1": bh1, "bh2": midpoint, "vary_coeff": weights}


@solver(
    "Zhao et al. 2023, arXiv:2302.04867",
    Claim(3, point_exact=True),
    Claim(2, {"order": 1}, point_exact=True),
    Claim(2, {"corrector": False}, point_exact=True),
    Claim(3, {"variant": "bh1"}, point_exact=True),
    Claim(3, {"variant": "vary_coeff"}, point_exact=True, exact=("data", "lambda", 2)),
    Claim(3, {"prediction": "noise"}, point_exact=True),
    Claim(3, {"mode": "pece"}, point_exact=True),
    Claim(4, {"order": 3}, warm_up=3, point_exact=True, exact=("data", "lambda", 3)),
    Claim(4, {"order": 3, "first_steps": "full"}, point_exact=True, exact=("data", "lambda", 3)),
    Claim(5, {"order": 4, "first_steps": "full"}, point_exact=True, exact=("data", "lambda", 4)),
)
def unipc(
    schedule: Schedule,
    times: list[Scalar],
    order: int = 2,
    variant: str = "bh2",
    prediction: str = "data",
    corrector: bool = True,
    mode: str = "pec",
    first_steps: str = "lower",
    lower_last: bool = False,
) -> Plan:
    """UniPC-p: predict through the last p outputs, correct with the new one among them.

    Predictor (UniP): x_s = (sigma_s/sigma_t) x_t + alpha_s (1 - e^{-h}) m_0
    + alpha_s B(h) sum_{i<p} (a_i / r_i)(m_i - m_0) through past outputs, r_i < 0; the network is
    asked there. Corrector (UniC): the same with the new output too, r_p = 1. The new output is
    kept for the next steps, so the corrector costs no call and raises the order to p + 1. The
    last step is not corrected, nor one of infinite h (from alpha = 0), nor one made by a full
    start. With noise prediction: alpha_s/alpha_t x_t - sigma_s (e^h - 1) m_0 - sigma_s B(h) ...

    Zhao et al., "UniPC: a unified predictor-corrector framework", 2023, arXiv:2302.04867,
    section 3 and algorithms 1, 2.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; at least `order` steps. The end may have sigma = 0 (a step of order
            1), the start alpha = 0 with data prediction.
        order: p, 1 to 8.
        variant: "bh1", "bh2" or "vary_coeff": see the module. They differ in steps through two
            outputs only. (The authors' vary_coeff leaves out terms; this has all of them.)
        prediction: what m is: "data" or "noise".
        corrector: False for the predictor alone, UniP-p, of order p.
        mode: "pec", or "pece" to ask the network again at the corrected state: two calls a step.
        first_steps: "lower": they have orders 1, 2, ..., which caps the order of the whole
            at 3 (2 without corrector); "full": extra network calls remove that cap.
        lower_last: end with steps of orders ..., 2, 1, as the authors' code does.

    Raises:
        ValueError: order above the number of steps or outside 1 .. 8; a wrong word; pece without
            a corrector; a full start at alpha = 0.
    """
    look_up("prediction", prediction, {"data": 0, "noise": 0})
    row = look_up("variant", variant, VARIANTS)
    if mode == "pece" and not corrector:
        raise ValueError("mode = 'pece' asks again after correcting: it needs corrector=True")
    correct = order + 1 if corrector else 0
    return multistep(
        schedule,
        times,
        order,
        prediction,
        "lambda",
        0.0,
        first_steps,
        lower_last,
        row,
        correct,
        mode,
    )
