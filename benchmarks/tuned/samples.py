"""Quality of the trained network's samples: plans tuned to it, against all that need no tuning.

python -m benchmarks.tuned.samples [--tuned NFE ...] [--free NFE ...] [--quick]
                                   [--output DIR] [--kept DIR] [--networks DIR]

For each number of network calls: the best training-free samplers with hindsight (`hindsight`), and
two tuned plans (`fits`), one fitted to the ends of the network's own paths and one to the law of
the digits that the network was trained on. All are measured by the distances of `rulers` and by the
error at the end of the path, on starts that no fit has seen. By held-out digits there are two to
compare with: the sampler that is best by these very digits, and the one that is best by the digits
of the training, as the tuned plans know these only. Writes samples.json, samples.md and samples.png
into the output folder; what is finished is kept, and a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion.files import write_atomic
from sde_diffusion.tables import number

from ..about import where_and_when
from ..model import SCHEDULE, digits_network
from .fits import FITS, tuned_plan
from .hindsight import best_training_free
from .jackknife import error_over_digits
from .rulers import RULERS
from .samples_figure import draw, same_starts
from .statistics import mean_and_error
from .study import ERRORS, QUICK, SCREEN_SEED, Sizes, Study
from .training_free import Setting

TUNED, FREE = (5,), (5, 8)
HARDEST = "held-out frechet"
HELD_OUT = tuple(figure for figure in RULERS if figure.startswith("held-out"))
CHOSEN = ", chosen on train"  # of a training-free sampler: the best by the digits of the training
FEW, MANY = 5, 8  # the claim: tuned at FEW is better than training-free at MANY


def measure(
    study: Study, tuned: Sequence[int], free: Sequence[int], say: Callable[[str], None]
) -> dict[str, Any]:
    """{"exact": figures, "training-free": {NFE: {figure: ...}}, fit: {NFE: ...}}."""
    found: dict[str, Any] = {"exact": study.in_full(None), "training-free": {}}
    for nfe in free:
        best = best_training_free(study, nfe, say)
        cells = {figure: _of(study, nfe, setting, figure) for figure, setting in best.items()}
        for figure in HELD_OUT:
            by_training = best[figure.replace("held-out", "train")]
            cells[figure + CHOSEN] = _of(study, nfe, by_training, figure)
        found["training-free"][str(nfe)] = cells
    for nfe in tuned:
        for name in FITS:
            plan = tuned_plan(study, name, nfe)
            fit = plan.origin["fit"]
            say(f"NFE {nfe}, tuned to {name}: {fit['numbers']} numbers, {fit['seconds']:.0f} s")
            cell = {"fit": fit, "figures": study.in_full(plan)}
            found.setdefault(name, {})[str(nfe)] = cell
        study.store.save()
    return found


def _of(study: Study, nfe: int, setting: Setting, figure: str) -> dict[str, Any]:
    values = study.in_full(setting.plan(SCHEDULE, nfe))[figure]
    return {"setting": setting.name, "values": values}


def claims(found: dict[str, Any], few: int, many: int) -> dict[str, dict[str, Any]]:
    """Figure -> the tuned plans' at `few` less the best training-free at `many`, seed by seed."""
    made: dict[str, dict[str, Any]] = {}
    for figure in (*(f + CHOSEN for f in HELD_OUT), *RULERS):
        rival = found["training-free"][str(many)][figure]["values"]
        made[figure] = {}
        for name in FITS:
            own = found[name][str(few)]["figures"][figure.removesuffix(CHOSEN)]
            mean, error = mean_and_error([a - b for a, b in zip(own, rival, strict=True)])
            made[figure][name] = {"difference": mean, "standard error": error}
    return made


def over_digits(study: Study, few: int, many: int) -> dict[str, float]:
    """Fit -> the error of its claim by "held-out frechet" that the held-out digits leave."""
    free = best_training_free(study, many, lambda text: None)[HARDEST].plan(SCHEDULE, many)
    assert free is not None
    return {name: error_over_digits(study, tuned_plan(study, name, few), free) for name in FITS}


def markdown(found: dict[str, Any], about: dict[str, str]) -> str:
    """A table for each figure: rows of samplers, columns of NFE."""
    parts = [f"# {__doc__.splitlines()[0]}"]
    parts += [
        "Mean ± standard error over sets of samples; lower is better. "
        f"`{about['command']}`, {about['date'][:10]}, {about['processor']}."
    ]
    rows = ["| tuned less training-free | " + " | ".join(FITS) + " |", "| --- |" + " --- |" * 2]
    for figure, made in found.get("claims", {}).items():
        pairs = [f"{c['difference']:+.4f} ± {c['standard error']:.1g}" for c in made.values()]
        rows.append("| " + " | ".join([figure, *pairs]) + " |")
    if "claims" in found:
        parts += [f"Tuned at NFE {FEW} less the best training-free at NFE {MANY}, by seed:"]
        parts.append("\n".join(rows))
        errors = " and ".join(f"{error:.2g}" for error in found["over digits"].values())
        parts += [
            f"The errors are those of the starts. By {HARDEST} the 599 digits themselves leave one "
            f"of {errors} (jackknife), and by them the best training-free has been chosen; in the "
            "first two rows it was by those of the training, which is all that tuned plans know."
        ]
    parts += [_table(found, figure) for figure in (*RULERS, *ERRORS)]
    return "\n\n".join(parts) + "\n"


def _table(found: dict[str, Any], figure: str) -> str:
    best, own = found["training-free"], {name: found[name] for name in FITS}
    nfes = sorted({int(n) for cells in (best, *own.values()) for n in cells})
    rows = [[figure, *(f"NFE {n}" for n in nfes)], ["---"] * (len(nfes) + 1)]
    for key, what in ((figure, "best training-free"), (figure + CHOSEN, f"best{CHOSEN}")):
        if key in next(iter(best.values())):
            for first, text in ((what, lambda c: _cell(c["values"])), ("", _setting)):
                texts = [text(best[str(n)][key]) if str(n) in best else "" for n in nfes]
                rows.append([first, *texts])
    for name, cells in own.items():
        texts = [_cell(cells[str(n)]["figures"][figure]) if str(n) in cells else "" for n in nfes]
        rows.append([f"tuned to {name}", *texts])
    if figure in RULERS:
        rows.append(["ends of the ODE", _cell(found["exact"][figure]), *[""] * (len(nfes) - 1)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _setting(cell: dict[str, Any]) -> str:
    return str(cell["setting"])


def _cell(values: list[float]) -> str:
    mean, error = mean_and_error(values)
    return f"{number(mean)} ± {error:.1g}"


def pictured(study: Study, few: int, many: int) -> dict[str, Tensor]:
    """Digits of the best training-free sampler at `many` calls, of the tuned plans at `few`."""
    free = best_training_free(study, many, lambda text: None)["law frechet"]
    plans = {
        f"best training-free, NFE {many}": free.plan(SCHEDULE, many),
        **{f"tuned to {name}, NFE {few}": tuned_plan(study, name, few) for name in FITS},
        "ends of the ODE": None,
    }
    return same_starts(plans, study, SCREEN_SEED)


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print."""
    module = "benchmarks.tuned.samples"
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=__doc__)
    parser.add_argument("--tuned", nargs="+", type=int, default=list(TUNED), metavar="NFE")
    parser.add_argument("--free", nargs="+", type=int, default=list(FREE), metavar="NFE")
    parser.add_argument("--quick", action="store_true", help="small sets, a short training")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/tuned"))
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/output/tuned"))
    parser.add_argument("--networks", type=Path, default=None, help="where the network is kept")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = where_and_when(module)
    network = digits_network(asked.quick, folder=asked.networks)
    sizes = QUICK if asked.quick else Sizes()
    study = Study(network, sizes, asked.kept)
    tuned, free = (sorted(set(nfes)) for nfes in (asked.tuned, asked.free))
    found = measure(study, tuned, free, lambda text: print(text, file=sys.stderr, flush=True))
    few, many = (FEW, MANY) if FEW in tuned and MANY in free else (tuned[0], free[-1])
    if (few, many) == (FEW, MANY):
        found["claims"] = claims(found, few, many)
        found["over digits"] = over_digits(study, few, many)
    content = {"about": about, "sizes": vars(sizes), **found}
    asked.output.mkdir(parents=True, exist_ok=True)
    text = markdown(found, about)
    write_atomic(asked.output / "samples.json", json.dumps(content, indent=1).encode())
    write_atomic(asked.output / "samples.md", text.encode())
    draw(found, pictured(study, few, many), asked.output / "samples.png")
    print(text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
