"""Several denoisers asked at one state: all that are one network in one call.

Denoisers made by `given` of one `NetworkDenoiser` differ in their condition alone, so that their
states and conditions are laid one after another along the batch, and the answer is taken apart
again. Where that cannot be done they are asked one after another, and the answers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..answers import wrong_output
from ..denoise import Call, Denoiser, NetworkDenoiser
from ..networks.network import Network
from ..scalar import Scalar

Answers = Callable[[Tensor], list[Tensor]]
"""x -> d of every branch, each of x's shape."""


class Group(NamedTuple):
    """Branches that are asked at once.

    Attributes:
        members: their numbers.
        denoiser: of the states of all of them, one branch after another along the batch.
    """

    members: list[int]
    denoiser: Denoiser


def ask_all(branches: Sequence[Denoiser], x: Tensor, t: Scalar) -> list[Tensor]:
    """d of every branch at x and t, a time, or one a sample."""

    def at(group: Group) -> Callable[[Tensor], Tensor]:
        each = isinstance(t, Tensor) and t.ndim > 0
        times = t.repeat(len(group.members)) if isinstance(t, Tensor) and each else t
        return lambda states: group.denoiser(states, times)

    found = groups(branches, len(x))
    return _answers(found, [at(group) for group in found], x)


def bind_all(branches: Sequence[Denoiser], times: Sequence[float], x: Tensor) -> list[Answers]:
    """For each time, x -> d of every branch, for states like x."""
    found = groups(branches, len(x))
    shapes = [x.new_empty(len(group.members) * len(x), *x.shape[1:]) for group in found]
    bound = [g.denoiser.bind(times, states) for g, states in zip(found, shapes, strict=True)]

    def at(calls: Sequence[Call]) -> Answers:
        asks = [partial(whole, call) for call in calls]
        return lambda x: _answers(found, asks, x)

    by_time = zip(*bound, strict=True) if bound else [()] * len(times)  # none may be asked
    return [at(calls) for calls in by_time]


def whole(call: Call, x: Tensor) -> Tensor:
    """d, with the factor that a loop would have folded into its coefficients."""
    d = call.function(x, None)
    return d if call.scale == 1.0 else d * call.scale


def _answers(
    found: Sequence[Group], asks: Sequence[Callable[[Tensor], Tensor]], x: Tensor
) -> list[Tensor]:
    """The answers of all groups, taken apart and put in the branches' order."""
    answers: dict[int, Tensor] = {}
    for group, asked in zip(found, asks, strict=True):
        count = len(group.members)
        states = x if count == 1 else torch.cat([x] * count)
        try:
            d = asked(states)
        except Exception as error:
            if count > 1:
                error.add_note(f"{count} branches of a guidance, {len(x)} states each, in one call")
            raise
        if not isinstance(d, Tensor) or d.shape != states.shape:
            raise ValueError(wrong_output(d, states))
        answers |= zip(group.members, d.to(x.dtype).split(len(x)), strict=True)
    return [answers[i] for i in range(len(answers))]


def groups(branches: Sequence[Denoiser], count: int) -> list[Group]:
    """The branches by what can be asked at once of `count` samples, in order."""
    found: list[Group] = []
    for i, branch in enumerate(branches):
        for k, group in enumerate(found):
            members = [*group.members, i]
            together = join([branches[m] for m in members], count)
            if together is not None:
                found[k] = Group(members, together)
                break
        else:
            found.append(Group([i], branch))
    return found


def join(branches: Sequence[Denoiser], count: int) -> NetworkDenoiser | None:
    """One denoiser of the states of all branches; None where there is none.

    Args:
        branches: two or more.
        count: states of each.
    """
    first, *others = branches
    if not isinstance(first, NetworkDenoiser) or type(first) is not NetworkDenoiser:
        return None
    if not all(type(b) is NetworkDenoiser and asked_alike(first, b) for b in others):
        return None
    conditions = [b.condition for b in branches if isinstance(b, NetworkDenoiser)]
    together = (
        _with_drops(conditions, count) if of_this_library(first) else _stacked(conditions, count)
    )
    return None if together is None else first.given(*together)


def of_this_library(denoiser: NetworkDenoiser) -> bool:
    """Whether its network takes (x, t, context, drop), compiled or not."""
    return isinstance(getattr(denoiser.network, "_orig_mod", denoiser.network), Network)


def asked_alike(a: NetworkDenoiser, b: NetworkDenoiser) -> bool:
    """Whether two differ in their condition alone."""
    same = ("prediction", "label", "timesteps", "sigma_data", "outputs", "dtype", "device")
    return (
        a.network is b.network
        and a.schedule is b.schedule
        and all(getattr(a, name) == getattr(b, name) for name in same)
    )


def _with_drops(conditions: Sequence[tuple[Any, ...]], count: int) -> tuple[Any, ...] | None:
    """One (context, drop) of several: a branch without a context drops another's."""
    if any(len(condition) > 2 for condition in conditions):
        return None
    pairs = [(*condition, None, None)[:2] for condition in conditions]
    known = [context for context, _ in pairs if context is not None]
    if not known:
        return () if all(drop is None for _, drop in pairs) else None
    if not _alike(known, count):
        return None
    contexts = torch.cat([known[0] if context is None else context for context, _ in pairs])
    if all(context is not None and drop is None for context, drop in pairs):
        return (contexts,)
    none = torch.zeros(count, dtype=torch.bool, device=contexts.device)
    drops = [~none if context is None else none if d is None else d for context, d in pairs]
    return (contexts, torch.cat(drops)) if _alike(drops, count) else None


def _stacked(conditions: Sequence[tuple[Any, ...]], count: int) -> tuple[Any, ...] | None:
    """Each part of the conditions along the batch, or as it is where all have the same."""
    if len({len(condition) for condition in conditions}) != 1:
        return None
    together: list[Any] = []
    for parts in zip(*conditions, strict=True):
        if _alike(parts, count):
            together.append(torch.cat(parts))
        elif all(part is parts[0] for part in parts) and not _of_samples(parts[0]):
            together.append(parts[0])
        else:
            return None
    return tuple(together)


def _of_samples(part: object) -> bool:
    return isinstance(part, Tensor) and part.ndim > 0


def _alike(parts: Sequence[Any], count: int) -> bool:
    """Whether they are tensors of one kind, with an entry for each sample."""
    kinds = {(p.shape, p.dtype, p.device) if _of_samples(p) else None for p in parts}
    return len(kinds) == 1 and None not in kinds and len(parts[0]) == count
