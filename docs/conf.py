"""Build with:  python -m sphinx -W --keep-going -n -b html docs docs/_build/html

Everything is made from the working tree: the figures are drawn, the code on the pages is run and
the reference is listed from the package, so none of them can fall behind it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "_ext")]
os.environ.setdefault("MPLBACKEND", "agg")

import torch  # noqa: E402

torch.set_num_threads(1)

project = "sde_diffusion"
author = "the sde_diffusion authors"
project_copyright = "the sde_diffusion authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "mathml",
    "run_python",
    "plain_docstrings",
]
exclude_patterns = ["_build", "figures", "_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
nitpicky = True

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
math_number_all = False
math_eqref_format = "({number})"
numfig = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # an override without a docstring says nothing new
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "sde_diffusion"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"sidebar_hide_name": False, "top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"


def draw_figures(app) -> None:
    """docs/figures/name.py -> docs/_generated/name.svg."""
    target = HERE / "_generated"
    target.mkdir(exist_ok=True)
    sys.path.insert(0, str(HERE / "figures"))
    for script in sorted((HERE / "figures").glob("[!_]*.py")):
        spec = importlib.util.spec_from_file_location(f"figure_{script.stem}", script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.draw(target / f"{script.stem}.svg")


def list_modules() -> list[str]:
    """Every public module and package of sde_diffusion, from the files themselves."""
    names = []
    for path in (ROOT / "sde_diffusion").rglob("*.py"):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return sorted(names)


def write_reference(app) -> None:
    """One page a module in docs/_generated/api, and the list that api.md includes."""
    folder = HERE / "_generated" / "api"
    folder.mkdir(parents=True, exist_ok=True)
    modules = list_modules()
    pages = {f"{name}.rst": _module_page(name) for name in modules}
    toc = "\n".join(f"_generated/api/{name}" for name in modules)
    pages["toc.txt"] = f"```{{toctree}}\n:maxdepth: 1\n\n{toc}\n```\n"
    for stale in folder.iterdir():
        if stale.name not in pages:
            stale.unlink()
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def _module_page(name: str) -> str:
    # Members defined here only: a name that a package re-exports has its page elsewhere.
    options = ["members", "show-inheritance", "ignore-module-all"]
    lines = [name, "=" * len(name), "", f".. automodule:: {name}"]
    return "\n".join([*lines, *(f"   :{option}:" for option in options), ""])


def setup(app):
    app.connect("builder-inited", draw_figures)
    app.connect("builder-inited", write_reference)
