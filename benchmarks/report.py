"""One HTML page with everything in it: no script, no request to anywhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from sde_diffusion.files import write_atomic

from .results import Results
from .tables import Table

TEMPLATE = Path(__file__).parent / "report.html.jinja"
HOW_TO_READ = (
    "NFE counts network evaluations, the cost of sampling. A solver with k evaluations a step "
    "takes NFE // k steps; adaptive solvers are shown at the evaluations they took.",
    "Endpoint errors ask how well a deterministic solver solves the probability-flow ODE: all "
    "paths start from the same points, run in float64 from t_max to t_clean, where the ODE is "
    "regular, and are compared with a solution of far higher accuracy (closed-form models: "
    "DOP853 at tolerance 1e-11; network: DOP853 at 1e-9 on the network's own ODE). An RMS above "
    "about 0.04 mostly counts paths that end in another mode; the median does not see them.",
    "Quality asks how far samples are from held-out real digits, whatever path led there; it is "
    "limited by the network and by the size of the sets. The Fréchet distance compares hidden "
    "features of a classifier trained on the training digits. The floor is the same distance "
    "between training and held-out digits: below its upper edge a metric cannot tell samples "
    "from data.",
    "Samples run to sigma = 0. Euler-Maruyama takes noise in its last step too, as published, "
    "which costs it quality at few steps.",
    "In each repeat all solvers start from the same noise, so that differences are paired.",
    "All solvers use one grid for the endpoint errors and one for the samples (see the settings). "
    "Other spacings change the ranking at small NFE.",
)


def write_report(
    path: Path, results: Results, verdict: str, sentences: list[str], tables: list[Table],
    pictures: dict[str, Path],
) -> Path:  # fmt: skip
    """The page, whole or not at all.

    Raises:
        ImportError: without jinja2.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError("the report needs jinja2: pip install 'sde_diffusion[bench]'") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    content: dict[str, Any] = {
        "about": results.about,
        "verdict": verdict,
        "sentences": sentences,
        "how": HOW_TO_READ,
        "tables": tables,
        "pictures": {title: _embed(file) for title, file in pictures.items()},
    }
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(content)
    write_atomic(path, page.encode())
    return path


def _embed(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
