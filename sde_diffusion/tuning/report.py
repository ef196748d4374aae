"""What a tuned plan says of itself: how it was made, and what it betters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plan import Plan
from ..tables import Table, number

_NAMES = {"tuned": "tuned", "base": "base", "default": "default of sample"}


def report(plan: Plan) -> str:
    """How a tuned plan was made, and its errors beside those of what it began with.

    Raises:
        ValueError: if the plan was not made by `tune`.
    """
    origin = plan.origin
    if "results" not in origin:
        raise ValueError(
            f"{plan.name} was not made by tune, so there is nothing to report; print(plan) shows it"
        )
    return "\n".join([str(table_of(plan)), "", *notes(origin)])


def table_of(plan: Plan) -> Table:
    """The errors of the tuned plan and of those it was measured against."""
    results, starts = plan.origin["results"], plan.origin["starts"]
    rows = []
    for key, name in _NAMES.items():
        if key in results:
            on = [results[key][part] for part in ("train", "validation")]
            what = name if key == "tuned" else f"{name}: {results[key]['name']}"
            rows.append((what, *(cell for errors in on for cell in (_loss(errors), _pair(errors)))))
    sets = [f"{part} ({starts[part]})" for part in ("train", "validation")]
    columns = ("plan", *(text for part in sets for text in (f"loss, {part}", "RMS / median")))
    note = (
        f"NFE {plan.origin['nfe']}; RMS / median: relative error of the end, |x - x*|/|x*|, over "
        "the starts"
    )
    return Table(plan.name, note, columns, tuple(rows))


def notes(origin: Mapping[str, Any]) -> list[str]:
    """How it was made, in sentences."""
    teacher, fit = origin["teacher"], origin["fit"]
    tolerance = teacher.get("tolerance")
    starts = f"starts of seed {origin['seed']}" if origin.get("drawn", True) else "starts given"
    if in_all := origin["starts"].get("in all"):
        starts += f", of {in_all} half those whose end is most in doubt, half others, weighed"
    lines = [
        f"Made for {origin['label']} on {origin['schedule']}, t = {origin['t_start']:g} to "
        f"{origin['t_end']:g}; sde_diffusion {origin['version']}, {origin['date']}.",
        f"Free: {origin['free']} ({fit['numbers']} numbers), loss {origin['loss']}, by "
        f"{origin['method']}: {fit['iterations']} iterations, {fit['seconds']:.0f} s, "
        f"{ended(fit['stopped'])}.",
        f"Teacher: {teacher.get('teacher', 'given ends')}"
        + (f", tolerance {tolerance:g}" if tolerance else "")
        + f"; {starts}.",
        calls(origin),
        f"On data in one point its states are off by up to {number(origin['off'])} times their "
        f"size; a row makes rounding {origin['amplification']:.3g} times as large.",
    ]
    if origin["chosen"] != "tuned":
        lines.append(
            f"The fit did not better it on the validation starts: this is the {origin['chosen']} "
            "plan as it was."
        )
    earlier = [one["about"] for one in reversed(origin.get("before", ())) if "about" in one]
    return lines + [f"Begun with a plan of its own origin. {about}" for about in earlier]


def ended(stopped: str) -> str:
    """How a fit came to its end, in words."""
    return "stopped at max_iterations" if stopped == "iterations" else stopped


def calls(origin: Mapping[str, Any]) -> str:
    """What a network call is here."""
    spared = origin["spared"]
    text = f"{origin['nfe']} calls of the denoiser a sample, all of them counted"
    asked = origin.get("network calls", origin["nfe"])
    if asked != origin["nfe"]:
        text += f", that is {asked} of a network"
    if "law known above" in origin:
        text += "; the plan is for a denoiser that knows the law of the data above sigma/alpha = "
        text += f"{origin['law known above']:.6g} (gaussian_start)"
    if spared:
        text += f"; at {spared} grid point it is not asked (an analytic or a linear first step)"
    return f"{text}; a guided denoiser that asks its network twice counts once here."


def summary(origin: Mapping[str, Any]) -> str:
    """One sentence, for `print(plan)`."""
    chosen = origin["results"][origin["chosen"]]["validation"]
    base = origin["results"]["base"]["validation"]
    label = origin["label"]
    label += " told of its data (gaussian_start)" if "law known above" in origin else ""
    return (
        f"{'Tuned' if origin['chosen'] == 'tuned' else 'Not bettered'} for {label}: "
        f"{origin['free']} free, loss {origin['loss']}; error on {origin['starts']['validation']} "
        f"validation starts, RMS / median: {_pair(chosen)} (base {_pair(base)})"
    )


def _pair(errors: Mapping[str, float | None]) -> str:
    rms, median = errors["rms"], errors["median"]
    return "not finite" if rms is None or median is None else f"{number(rms)} / {number(median)}"


def _loss(errors: Mapping[str, float | None]) -> str:
    return "not finite" if errors["loss"] is None else number(errors["loss"])
