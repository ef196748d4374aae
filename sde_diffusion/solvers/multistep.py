r"""One text for every multistep method: Adams, DEIS, DPM-Solver 2M and 3M, UniPC, SA-Solver.

A step from t to s is a row through the last outputs; methods differ in that row alone. A corrector
repeats the step once the output at s is known, with that output among its nodes and with the same
draw of noise: it costs no network call, since the next step keeps the output at the predicted
state. (PECE asks again at the corrected state.) It is left out where there is no next output,
that is in the last step, and where the integral of the interpolant has no limit: from alpha = 0
in lambda or rho. In the angle, phi or t the velocities are regular there, and so is the step.

The step to sigma = 0 stays as long as the cleanest call of the network makes it while the others
shrink with their number. Extrapolated over it from the latest outputs alone, a polynomial of degree
k is as large as the k-th power of its length over theirs, and so are all roundings. Its nodes are
therefore the latest outputs that lie at least half its length apart, unless the latest ones
themselves are asked for, as papers and other libraries take them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from ..form import Form, number_of
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, atan2, log, tan
from ..schedule import Schedule
from ..trace import Trace
from .exponential import Weights, output, place, regular_at_noise, weights

_MOST = 8  # beyond it, coefficients of an extrapolation only amplify errors
_APART = 0.5  # of the length of the step to sigma = 0: how far apart its nodes are, at least


class Node(NamedTuple):
    """An output and its time."""

    t: Scalar
    output: Form


Row = Callable[..., Weights]
"""(schedule, t, s, nodes, prediction, variable, tau) -> Weights; `exponential.weights` is one."""


def multistep(
    schedule: Schedule,
    times: list[Scalar],
    order: int,
    prediction: str,
    variable: str = "lambda",
    tau: Scalar | Callable[[Scalar], Scalar] = 0.0,
    first_steps: str = "lower",
    lower_last: bool = False,
    row: Row = weights,
    corrector: int = 0,
    mode: str = "pec",
    last: int | None = None,
    last_step: str = "apart",
) -> Plan:
    """The plan of a multistep method.

    Args:
        schedule, times, prediction, variable, first_steps, lower_last, last_step: as for `adams`.
        order: the number of outputs of the predictor.
        tau: stochasticity of each step, or a function that gives it at the step's noisier end.
        row: the step through given nodes.
        corrector: the number of outputs of the corrector, the new one among them; 0: none.
        mode: "pec", or "pece" to ask the network again at the corrected state.
        last: the number of outputs of the step to sigma = 0, if not `order`.
    """
    check_order(order, len(times) - 1)
    if corrector:
        check_order(corrector, len(times), "corrector")
    full_start = look_up("first_steps", first_steps, {"lower": False, "full": True})
    again = look_up("mode", mode, {"pec": False, "pece": True})
    spread = look_up("last_step", last_step, {"apart": True, "latest": False})
    wanted = order if corrector > order else order - 1  # nodes that a full start needs
    trace = Trace(times[0])
    x = trace.x
    past: list[Node] = []  # latest first
    waiting: _Step | None = None  # for its correction
    for i, (t, s) in enumerate(pairwise(times)):
        x, d = trace.denoise(x, t)
        past = [Node(t, output(schedule, x, d, t, prediction)), *past]
        if waiting:
            new, *old = past[: waiting.corrector]
            x = trace.store(waiting.through([*old[:1], new, *old[1:]]), t)  # the step's start first
            if again:
                x, d = trace.stage(x, t)
                past[0] = Node(t, output(schedule, x, d, t, prediction))
        left = len(times) - 1 - i if lower_last else _MOST
        if schedule.sigma(s) > 0:
            nodes = past[: min(order, left)]
        else:
            known = _apart(schedule, past, s, variable) if spread else past
            nodes = known[: min(last or order, left)]
        regular = schedule.alpha(t) > 0 or regular_at_noise(prediction, variable)
        finite = bool(regular and schedule.sigma(s) > 0)
        needed = min(wanted, left) if full_start else 0
        if len(past) < needed and not regular:
            raise ValueError(
                f"first_steps = 'full' at t = {float(t):g}, where alpha = 0: {prediction} "
                f"prediction in {variable} has no step above order 1 from there; choose 'lower', "
                "start where alpha > 0, or take the solver angular, which is regular at alpha = 0"
            )
        inner = len(past) < needed and finite
        if inner:
            nodes = past + _inner_nodes(
                trace, schedule, x, t, s, past, needed, prediction, variable, tau
            )
        tau_t = (tau(t) if callable(tau) else tau) if schedule.sigma(s) > 0 else 0.0
        weigh = partial(row, schedule, t, s, prediction=prediction, variable=variable, tau=tau_t)
        z = trace.noise(t, s) if tau_t else None
        now = _Step(x, z, weigh, min(corrector, left + 1))
        waiting = now if corrector and finite and not inner else None
        x = now.through(nodes)
    return trace.end(x, times[-1])


def check_order(order: int, steps: int, name: str = "order", least: int = 1) -> None:
    """Raise ValueError unless the order is an integer that the grid has steps for."""
    if isinstance(order, bool) or not isinstance(order, int) or not least <= order <= _MOST:
        raise ValueError(f"{name} = {order!r} must be an integer from {least} to {_MOST}")
    if order > steps:
        raise ValueError(f"{name} = {order} needs at least {order} steps, and the grid has {steps}")


class _Step(NamedTuple):
    """A step from state x, with its draw of noise, that may be taken through any nodes."""

    x: Form
    z: Form | None
    weigh: Callable[..., Weights]
    corrector: int

    def through(self, nodes: Sequence[Node]) -> Form:
        """The state at the end of the step."""
        w = self.weigh(nodes=[node.t for node in nodes])
        return w.state(self.x, [node.output for node in nodes], self.z)


def _apart(schedule: Schedule, past: list[Node], s: Scalar, variable: str) -> list[Node]:
    """The latest output and those before it that lie half the step to s apart."""
    places = [number_of(place(schedule, node.t, variable)) for node in past]
    step = abs(number_of(place(schedule, s, variable)) - places[0])
    least = (1 - 1e-9) * _APART * step  # where it is just half, rounding does not decide
    chosen = [0]
    for i, u in enumerate(places):
        if abs(u - places[chosen[-1]]) >= least:
            chosen.append(i)
    return [past[i] for i in chosen]


def _inner_nodes(
    trace: Trace,
    schedule: Schedule,
    x: Form,
    t: Scalar,
    s: Scalar,
    known: list[Node],
    wanted: int,
    prediction: str,
    variable: str,
    tau: Scalar | Callable[[Scalar], Scalar],
) -> list[Node]:
    """Outputs at points inside the step, so that known and new nodes number `wanted`.

    The points lie evenly in lambda, from alpha = 0 in the angle, and end at s. Each sweep over them
    steps to every point through all nodes, and raises the order of what is found there by one.
    """
    if tau:
        raise ValueError(
            f"first_steps = 'full' is for tau = 0, not tau = {tau}: noise limits the start"
        )
    count = wanted - len(known)
    if schedule.alpha(t) > 0:
        low, high = schedule.half_log_snr(t), schedule.half_log_snr(s)
        levels = [low + (high - low) * (i / count) for i in range(1, count)]
    else:  # pi/2 - theta, the angle from pure noise
        angle = atan2(schedule.alpha(s), schedule.sigma(s))
        levels = [log(tan(angle * (i / count))) for i in range(1, count)]
    points = [schedule.time_of(level) for level in levels] + [s]
    inner: list[Node] = []
    for _ in range(count):
        nodes = known + inner
        inner = []
        for u in points:
            w = weights(schedule, t, u, [node.t for node in nodes], prediction, variable)
            y, d = trace.stage(w.state(x, [node.output for node in nodes]), u)
            inner.append(Node(u, output(schedule, y, d, u, prediction)))
    return inner
