"""Whether an objective and data fit each other: what would otherwise fail, or learn nothing, later.

The library's own networks are asked once on the device "meta", where tensors have shapes and no
numbers: what a network refuses of the data's shape is refused before the first step, at no cost.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..denoise import NetworkDenoiser
from ..learned_schedule import LearnedSchedule
from ..networks.build import NETWORKS
from .data import Data
from .objective import Objective

# Conditions that are not labels: argument of a network -> what they are called, what is counted,
# number of axes, and the axis that is counted.
VECTORS = {
    "token_size": ("tokens", "numbers", 3, 2),
    "condition_channels": ("images", "channels", 4, 1),
}


def check_fits(objective: Objective, data: Data) -> None:
    """Refuse data that a denoising objective cannot learn, and one that leaves weights untrained.

    Args:
        objective: one with a `denoiser`; another is not looked into.
        data: what it is to learn; its first sample is read.

    Raises:
        ValueError: a network that is not asked as the data need; conditions on one side only, of
            another kind or another size; samples of a shape that the network refuses; a schedule
            with weights that the objective does not train.
    """
    denoiser, network = getattr(objective, "denoiser", None), objective.network
    if not isinstance(denoiser, NetworkDenoiser):
        return
    context = data.batch(torch.zeros(1, dtype=torch.int64)).context
    known = getattr(network, "configuration", None)
    if known is not None:
        _check_conditions(known, context, data)
    inner: Any = objective
    while isinstance(getattr(inner, "objective", None), Objective):
        inner = inner.objective
    drop = getattr(inner, "drop", 0)
    _check_signature(network, 0 if context is None else 2 if drop else 1, drop)
    if type(network) in NETWORKS.values():
        _ask(network, data.event_shape, context)
    _check_schedule(objective, denoiser)


def check_held_out(objective: Objective, data: Data, held_out: Data) -> None:
    """Refuse held-out data that are not of the kind of the data that are learned.

    Raises:
        ValueError: of another shape, range or kind of condition, or with classes that the network
            does not know.
    """
    if tuple(held_out.event_shape) != tuple(data.event_shape):
        raise ValueError(
            f"held_out has samples of shape {tuple(held_out.event_shape)}, the data of shape "
            f"{tuple(data.event_shape)}: give both the same"
        )
    spans = getattr(held_out, "range", None), getattr(data, "range", None)
    if None not in spans and spans[0] != spans[1]:
        raise ValueError(
            f"held_out has values in {spans[0]}, the data in {spans[1]}: scale both alike"
        )
    first = torch.zeros(1, dtype=torch.int64)
    kinds = [_kind(given.batch(first).context) for given in (held_out, data)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"held_out has {kinds[0]}, the data have {kinds[1]}: give both the same")
    known = getattr(objective.network, "configuration", {}).get("classes") or data.classes
    if known and held_out.classes and held_out.classes > known:
        raise ValueError(
            f"held_out has labels up to {held_out.classes - 1}, but what is trained knows 0 to "
            f"{known - 1}: leave the others out, or mend the labels"
        )


def _kind(context: Tensor | None) -> str:
    if context is None:
        return "no conditions"
    if context.ndim == 4:
        return f"images of shape {tuple(context.shape[1:])} as conditions"
    return f"tokens of {context.shape[-1]} numbers" if context.ndim == 3 else "class labels"


def _check_conditions(known: Mapping[str, Any], context: Tensor | None, data: Data) -> None:
    """Conditions of one kind and size, on both sides or on neither."""
    told, classes = getattr(data, "classes", None), known.get("classes")
    if classes and not told:
        raise ValueError(
            f"the network takes classes = {classes}, but the data have no class labels: name their "
            "labels, or leave out classes"
        )
    for name, (kind, unit, axes, axis) in VECTORS.items():
        taken = known.get(name)
        size = context.shape[axis] if context is not None and context.ndim == axes else None
        if told and taken:
            raise ValueError(f"the network takes {kind}, but the data have class labels")
        if size and size != taken:
            asked = f"{name} = {taken}" if taken else f"no {kind}"
            raise ValueError(
                f"the data have {kind} of {size} {unit}, but the network takes {asked}: give it "
                f"{name} = {size}, or take other data"
            )
        if taken and not size:
            raise ValueError(
                f"the network takes {name} = {taken}, but the data have no {kind}: give "
                f"(samples, {kind}), or leave out {name}"
            )
    if told and not classes:
        raise ValueError(
            f"the data have class labels, but the network takes none: give it classes = {told}, or "
            "take the data without labels"
        )
    if told and classes and told > classes:
        raise ValueError(
            f"the data have labels up to {told - 1}, but the network knows classes = {classes}, 0 "
            f"to {classes - 1}: give it classes = {told}, or mend the labels"
        )


def _check_signature(network: nn.Module, conditions: int, drop: float) -> None:
    """The network can be asked with as many conditions: none, the context, or drop beside it."""
    words = ("x", "t", "context", "drop")[: 2 + conditions]
    reason = _unasked(network.forward, *words)
    if reason:
        why = ("", "with conditions ", f"with conditions, withheld with drop = {drop:g}, ")
        raise ValueError(
            f"{type(network).__name__}.forward{reason[0]} cannot be asked as forward("
            f"{', '.join(words)}), as it is {why[conditions]}here ({reason[1]}): write it so"
            + (" (drop, booleans, one a sample: whose context is withheld)" * (conditions == 2))
        )


def check_sampler(sampler: Any, objective: Objective) -> None:
    """ValueError where the schedule is learned and the sampler does not take what it becomes."""
    schedule = getattr(getattr(objective, "denoiser", None), "schedule", None)
    if sampler is None or not isinstance(schedule, LearnedSchedule):
        return
    reason = _unasked(sampler, "network", "schedule")
    if reason:
        raise ValueError(
            f"the schedule is learned, and sampler{reason[0]} takes the network alone: write "
            "sampler(network, schedule), and sample on the schedule that it is given"
        )


def _unasked(function: Any, *words: str) -> tuple[str, str] | None:
    """Its signature and the reason, if a function cannot be called with so many arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a compiled function has none
        return None
    try:
        signature.bind(*words)
    except TypeError as error:
        return str(signature), str(error)
    return None


def _ask(network: nn.Module, event_shape: tuple[int, ...], context: Tensor | None) -> None:
    """What the network raises of one sample of this shape, without computing anything."""
    values: dict[str, Any] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    weights = {name: value.detach().to("meta") for name, value in values.items()}
    dtype = next(p.dtype for p in network.parameters())
    x, t = torch.empty(1, *event_shape, dtype=dtype, device="meta"), torch.empty(1, device="meta")
    condition = () if context is None else (context.to("meta"),)
    with torch.no_grad():
        functional_call(network, weights, (x, t, *condition))


def _check_schedule(objective: Objective, denoiser: NetworkDenoiser) -> None:
    """A schedule with weights is trained by the objective that holds it."""
    if not isinstance(denoiser.schedule, nn.Module):
        return
    trained = {id(p) for p in objective.parameters()}
    if any(p.requires_grad and id(p) not in trained for p in denoiser.schedule.parameters()):
        raise ValueError(
            f"{type(objective).__name__} does not train the {type(denoiser.schedule).__name__} "
            "that it is on: take LearnedScheduleObjective(objective), or its schedule.frozen()"
        )
