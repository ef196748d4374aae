r"""SEEDS: exponential Runge-Kutta methods on the reverse SDE, whose stages share noise.

With tau = 1 in the formula of `exponential`, h = lambda_s - lambda_t,

    x_u = (alpha_u/alpha_t) x_t - 2 sigma_u int_{lambda_t}^{lambda_u} e^{lambda_u - l} eps dl + n_u
    Var n_u = sigma_u^2 (e^{2 (lambda_u - lambda_t)} - 1)

and every stage u must carry the part of the step's own noise that falls before it. The paper's
methods draw z_i for the disjoint intervals between stages and add them up along one path:
n_u = (alpha_u/alpha_v) n_v + sigma_u sqrt(e^{2 (lambda_u - lambda_v)} - 1) z for stages v, u.

What such sharing can reach. On a linear problem a method with weights b_i and stages on one path
replaces int_0^1 W ds by sum_i b_i W_{c_i} = int B dW, B(s) = sum of the b_i with c_i > s, a step
function. Order 3 needs int B (1 - s) ds = 1/3 (the deterministic conditions) and int B^2 = 1/3
(the variance), hence int (B - (1 - s))^2 = 0, which no step function meets: **one path caps the
weak order at 2, whatever the number of stages**. Weak order 3 takes stages whose noises have the
right covariances without lying on one path; four stages suffice (`_gauss`).

Gonzalez et al., "SEEDS: exponential SDE solvers for fast high-quality sampling from diffusion
models", 2023, arXiv:2305.14267.
"""

from __future__ import annotations

import math
from itertools import pairwise

from ..form import Form
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, sqrt
from ..schedule import Schedule
from ..trace import Trace
from .exponential import output, weights
from .solver import Claim, solver

_NODES: dict[int, tuple[float, ...]] = {1: (), 2: (0.5,), 3: (1 / 3, 2 / 3)}


@solver(
    "Gonzalez et al. 2023, arXiv:2305.14267",
    Claim(2, strong=1.0),
    Claim(1, {"stages": 1}, exact=("noise", "lambda", 1), strong=1.0),
    Claim(2, {"stages": 3}, exact=("noise", "lambda", 2), strong=1.0),
    Claim(3, {"stages": 4}, exact=("noise", "lambda", 2), strong=1.0),
    Claim(2, {"prediction": "data"}, point_exact=True, strong=1.0),
    Claim(3, {"stages": 4, "prediction": "data"}, None, True, ("data", "lambda", 2), 1.0),
)
def seeds(
    schedule: Schedule, times: list[Scalar], stages: int = 2, prediction: str = "noise"
) -> Plan:
    """SEEDS-1, 2 and 3 on the reverse SDE, and a method of four stages with weak order 3.

    SEEDS-1: x_s = (alpha_s/alpha_t) x_t - 2 sigma_s (e^h - 1) eps + sigma_s sqrt(e^{2h} - 1) z.
    SEEDS-2: the same to the middle u of the step, then
    x_s = (alpha_s/alpha_t) x_t - 2 sigma_s (e^h - 1) eps_u
          + sigma_s (sqrt(e^{2h} - e^h) z_1 + sqrt(e^h - 1) z_2).
    SEEDS-3: stages at 1/3 and 2/3 with the weights of DPM-Solver-3, noise shared likewise. The
    paper claims weak order 3 for it; it is 2, as the module shows, and so is what is measured.
    stages = 4: weak order 3.

    Gonzalez et al., "SEEDS", 2023, arXiv:2305.14267, section 4 and algorithms 1-4.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start with noise prediction. A step to sigma = 0
            is one of DDIM.
        stages: 1, 2 or 3, the paper's, or 4: network calls a step.
        prediction: "noise" or "data".

    Raises:
        ValueError: for other stages or another prediction.
    """
    if isinstance(stages, bool) or stages not in (1, 2, 3, 4):
        raise ValueError(f"stages = {stages!r} must be 1, 2 or 3 (SEEDS-1, 2, 3) or 4")
    look_up("prediction", prediction, {"noise": 0, "data": 0})
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        x, d = trace.denoise(x, t)
        first = output(schedule, x, d, t, prediction)
        h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
        if h == math.inf:
            tau = 1.0 if schedule.sigma(s) > 0 else 0.0
            w = weights(schedule, t, s, [t], prediction, tau=tau)
            x = w.state(x, [first], trace.noise(t, s) if tau else None)
        elif stages == 4:
            x = _gauss(trace, schedule, x, first, t, s, prediction)
        else:
            x = _shared_path(trace, schedule, x, first, t, s, _NODES[stages], prediction)
    return trace.end(x, times[-1])


def _shared_path(
    trace: Trace,
    schedule: Schedule,
    x: Form,
    first: Form,
    t: Scalar,
    s: Scalar,
    nodes: tuple[float, ...],
    prediction: str,
) -> Form:
    """Each stage through the first output and the last one, all on one path of the noise."""
    lambda_t = schedule.half_log_snr(t)
    h = schedule.half_log_snr(s) - lambda_t
    known, noise, v = [(t, first)], Form({}), t
    for c in (*nodes, 1.0):
        u = s if c == 1 else schedule.time_of(lambda_t + c * h)
        ahead = weights(schedule, v, u, [v], prediction, tau=1.0)
        noise, v = ahead.x * noise + ahead.z * trace.noise(v, u), u
        w = weights(schedule, t, u, [node for node, _ in known], prediction, tau=1.0)
        y = w.state(x, [out for _, out in known]) + noise
        if c < 1:
            y, d = trace.stage(y, u)
            last = (u, output(schedule, y, d, u, prediction))
            # SEEDS-2 takes its middle alone, SEEDS-3 the line through t and the last stage
            known = [last] if len(nodes) == 1 else [(t, first), last]
    return y


def _gauss(
    trace: Trace, schedule: Schedule, x: Form, first: Form, t: Scalar, s: Scalar, prediction: str
) -> Form:
    """Stages at c_2 = 1/5 and at the nodes c_3, c_4 of Gauss's rule, b_3 = b_4 = 1/2 as h -> 0.

    With W the noise of the whole step, the stages have n_i = share_i W + e_i, where share_i and
    Var e_i are those of a path at c_i, and e_3, e_4 are independent, which those of a path are
    not: then Var (n_3 + n_4)/2 = 1/3 in units of the step's, as of the mean of a path. e_2 is the
    combination of e_3 and e_4 that has the covariances c_2 with n_3 and n_4.
    """
    lambda_t = schedule.half_log_snr(t)
    h = schedule.half_log_snr(s) - lambda_t
    c = (0.2, 0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6)
    u_2, u_3, u_4 = (schedule.time_of(lambda_t + h * part) for part in c)
    drift = lambda u, nodes: weights(schedule, t, u, nodes, prediction, tau=1.0)
    whole = drift(s, [u_3, u_4])
    z = _orthonormal(trace, schedule, t, s, prediction)

    def noise(u: Scalar) -> tuple[Scalar, Scalar]:
        """Coefficients of (z_0, e) in n_u: the share of the step's noise, and what is left."""
        ahead, after = drift(u, [t]), weights(schedule, u, s, [u], prediction, tau=1.0)
        share = after.x * ahead.z / whole.z  # correlation of a path at u with its end
        return ahead.z * share, ahead.z * sqrt((1 - share) * (1 + share))

    def stage(u: Scalar, e: Form, nodes: list[tuple[Scalar, Form]]) -> Form:
        along, across = noise(u)
        y = drift(u, [node for node, _ in nodes]).state(x, [out for _, out in nodes])
        y, d = trace.stage(y + along * z[0] + across * e, u)
        return output(schedule, y, d, u, prediction)

    mix = [((1 - part) * 6**0.5 / 2) for part in c[1:]]  # squares sum to 1
    n_2 = stage(u_2, mix[0] * z[1] + mix[1] * z[2], [(t, first)])
    n_3 = stage(u_3, z[1], [(t, first), (u_2, n_2)])
    n_4 = stage(u_4, z[2], [(t, first), (u_2, n_2)])
    return whole.state(x, [n_3, n_4], z[0])


def _orthonormal(
    trace: Trace, schedule: Schedule, t: Scalar, s: Scalar, prediction: str
) -> list[Form]:
    """Three independent draws on thirds of the step, turned so that the first is the whole's."""
    lambda_t = schedule.half_log_snr(t)
    h = schedule.half_log_snr(s) - lambda_t
    inner = [schedule.time_of(lambda_t + h * part / 3) for part in (1, 2)]
    points = [t, *inner, s]
    draws = [trace.noise(a, b) for a, b in pairwise(points)]
    parts = []
    for a, b in pairwise(points):
        ahead = weights(schedule, a, b, [a], prediction, tau=1.0)
        after = weights(schedule, b, s, [b], prediction, tau=1.0).x if b is not s else 1.0
        parts.append(after * ahead.z)
    p, q, r = parts
    whole, rest = sqrt(p * p + q * q + r * r), sqrt(p * p + q * q)
    return [
        (p * draws[0] + q * draws[1] + r * draws[2]) / whole,
        (q * draws[0] - p * draws[1]) / rest,
        (r * p * draws[0] + r * q * draws[1] - rest * rest * draws[2]) / (rest * whole),
    ]
