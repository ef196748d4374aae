r"""Rows that papers and libraries use beside the exact integral of `exponential.weights`.

Each takes (schedule, t, s, nodes, prediction, variable, tau) and gives `Weights`. With h =
lambda_s - lambda_t, the first node at t and the second at lambda_t + r h (r < 0 for a past
output), an output is linear in lambda with slope (output_1 - output_0)/r per step:

    heun       the line is integrated exactly
    midpoint   the line is taken at the middle of the step: total * [output_0 + slope/2]
    bh1        total * output_0 + B slope/2, B = k h alpha_s or -k h sigma_s (noise)
    shipped    three nodes: the parabola's second difference counts half
    diffusers  the same, with `midpoint` for two nodes and a slip of its own where there is noise

with k = 1 + tau^2. The first three agree to O(h^3) in a step, enough for order 2; `heun` is
`weights` itself. With one node, or an infinite h, all are the first-order step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..form import number_of
from ..scalar import Scalar
from ..schedule import Schedule
from .exponential import Weights, weights
from .multistep import Row


def midpoint(
    schedule: Schedule,
    t: Scalar,
    s: Scalar,
    nodes: Sequence[Scalar],
    prediction: str,
    variable: str = "lambda",
    tau: Scalar = 0.0,
) -> Weights:
    """The line through two outputs, taken at the middle of the step; B(h) = e^h - 1 of UniPC."""
    if len(nodes) != 2:
        return weights(schedule, t, s, nodes, prediction, variable, tau)
    w = weights(schedule, t, s, nodes[:1], prediction, variable, tau)
    return _half_slope(schedule, t, s, nodes[1], w, w.outputs[0])


def bh1(
    schedule: Schedule,
    t: Scalar,
    s: Scalar,
    nodes: Sequence[Scalar],
    prediction: str,
    variable: str = "lambda",
    tau: Scalar = 0.0,
) -> Weights:
    """UniPC's row with B(h) = h where it has two outputs; the exact integral otherwise."""
    if len(nodes) != 2:
        return weights(schedule, t, s, nodes, prediction, variable, tau)
    w = weights(schedule, t, s, nodes[:1], prediction, variable, tau)
    (alpha_s, sigma_s), h = schedule(s), schedule.half_log_snr(s) - schedule.half_log_snr(t)
    size = (1 + tau**2) * h * (alpha_s if prediction == "data" else -sigma_s)
    return _half_slope(schedule, t, s, nodes[1], w, size)


def shipped(
    schedule: Schedule,
    t: Scalar,
    s: Scalar,
    nodes: Sequence[Scalar],
    prediction: str,
    variable: str = "lambda",
    tau: Scalar = 0.0,
) -> Weights:
    """Three outputs with half their second difference, as libraries ship 3M: of order 2.

    The parabola is output_0 + D1 u + D2 u^2 with u = (lambda - lambda_t)/h; its integral is
    `exact`, that of the line through the first two outputs is `line`, and
    exact - line = (M2 + r0 M1) D2 with the moments M1, M2 of u, u^2 and r0 = -r of the second node.
    """
    exact = weights(schedule, t, s, nodes, prediction, variable, tau)
    if len(nodes) != 3 or not exact.outputs[2]:
        return exact
    line = weights(schedule, t, s, nodes[:2], prediction, variable, tau)
    at = [schedule.half_log_snr(node) for node in nodes]
    both = (at[0] - at[2]) * (at[1] - at[2]) * exact.outputs[2]  # M2 + r0 M1
    first = (at[0] - at[1]) ** 2 * line.outputs[1]  # -r0 M1
    half = 0.5 * (both + first) / both
    pairs = zip(exact.outputs, [*line.outputs, 0.0], strict=True)
    return exact._replace(outputs=[e - half * (e - flat) for e, flat in pairs])


def diffusers(
    schedule: Schedule,
    t: Scalar,
    s: Scalar,
    nodes: Sequence[Scalar],
    prediction: str,
    variable: str = "lambda",
    tau: Scalar = 0.0,
) -> Weights:
    """3M as diffusers ships it: `midpoint` with two outputs, `shipped` with three.

    With noise its weight of D2 is alpha_s (bracket - 1/2) where alpha_s (bracket + 1/2) is right
    (the integral of the parabola): weak order 1 on even steps. It does not converge on one path,
    where D2 is of size h^(1/2), nor on steps that alternate in length.
    """
    if len(nodes) == 2:
        return midpoint(schedule, t, s, nodes, prediction, variable, tau)
    w = shipped(schedule, t, s, nodes, prediction, variable, tau)
    if not tau or len(nodes) != 3 or not w.outputs[2]:
        return w
    h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
    at = [schedule.half_log_snr(node) for node in nodes]
    slip = schedule.alpha(s) * h**2
    for j, k, m in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        w.outputs[j] = w.outputs[j] - slip / ((at[j] - at[k]) * (at[j] - at[m]))
    return w


SOLVER_TYPES: dict[str, Row] = {"midpoint": midpoint, "heun": weights}
DIFFERENCES: dict[str, Row] = {
    "corrected": weights,
    "shipped": shipped,
    "diffusers": diffusers,
}


def _half_slope(
    schedule: Schedule, t: Scalar, s: Scalar, node: Scalar, w: Weights, size: Scalar
) -> Weights:
    """total * output_0 + size/2 * slope; no slope where it or h is infinite."""
    low, high, at = (schedule.half_log_snr(u) for u in (t, s, node))
    if not all(math.isfinite(number_of(place)) for place in (low, high, at)):
        return w._replace(outputs=[w.outputs[0], 0.0])
    extra = size * (high - low) / (2 * (at - low))
    return w._replace(outputs=[w.outputs[0] - extra, extra])
