"""All certificates as one table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ..presets import PRESETS
from ..solvers.solver import SOLVERS
from .certificate import SCHEDULES, Certificate
from .convergence import even_grid

_HEAD = (
    "| sampler | order claimed | measured, exact start | own start | uneven steps "
    "| weak, strong on paths | rows exact for | point data | calls, history, draws | equals |"
)
_GRIDS = (" Karras", " trailing", " Stable Diffusion")  # what names of presets end with


def table(certificates: Sequence[Certificate]) -> str:
    """One row a certificate, in the order given, with the samplers of peers that it equals."""
    schedule = SCHEDULES["VP"]
    grid = even_grid(schedule, 20).tolist()
    peers = [(preset, preset(schedule, grid)) for preset in PRESETS.values()]

    def row(c: Certificate) -> str:
        plan = SOLVERS[c.solver](schedule, grid, **c.options)
        equal = dict.fromkeys(_without_grid(peer.name) for peer, its in peers if plan.equals(its))
        return f"{_row(c)} {', '.join(equal)} |"

    lines = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    return "\n".join([*lines, *map(row, certificates)]) + "\n"


def _without_grid(name: str) -> str:
    for ending in _GRIDS:
        name = name.removesuffix(ending)
    return name


def _row(c: Certificate) -> str:
    claimed = "" if c.claim is None else f"{c.claim.order}"
    if c.claim is not None and c.claim.usual_order != c.claim.order:
        claimed += f" ({c.claim.usual_order})"
    paths = (
        ""
        if c.paths is None
        else f"{c.paths.weak:.1f} ± {c.paths.weak_error:.1f}, {c.paths.strong:.2f}"
    )
    cells = (
        f"`{c.name}` {c.paper}",
        claimed,
        f"{c.order:.2f}" + (" (weak)" if c.stochastic else ""),
        f"{c.usual_order:.2f}",
        f"{c.uneven_order:.2f}",
        paths,
        str(c.exact) if c.exact else "",
        "exact" if c.point_exact else f"{c.point_error:.0e}",
        f"{c.calls_per_step:g}, {c.history}, {c.noises_per_step:g}",
    )
    return "| " + " | ".join(cells) + " |"
