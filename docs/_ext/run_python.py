"""The `run-python` directive: code that the build runs, with what it printed beneath.

The blocks of a page share one namespace, in order. An exception fails the build, so a number
printed on a page is a number that this version of the package gives. Figures that matplotlib has
open when a block ends are shown too, `:alt:` saying what is to be seen; `:hide:` leaves out the
code, of pictures that nobody would copy.
"""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).parents[2] / "sde_diffusion"
DOCS = Path(__file__).parents[1]


class RunPython(SphinxDirective):
    has_content = True
    option_spec: ClassVar = {"alt": directives.unchanged, "hide": directives.flag}

    def run(self) -> list[nodes.Node]:
        code = "\n".join(self.content)
        namespace = self.env.temp_data.setdefault("run_python", {"__name__": "__page__"})
        printed = io.StringIO()
        place = f"{self.env.docname}:{self.content_offset + 1}"
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(code, place, "exec"), namespace)
        except Exception as error:
            raise ExtensionError(
                f"{place}: the code of this page failed\n{code}\n\n{traceback.format_exc()}"
            ) from error
        for source in PACKAGE.rglob("*.py"):  # run the page again when the package changes
            self.env.note_dependency(str(source))
        box = nodes.container("", classes=["run-python"])
        if "hide" not in self.options:
            box += nodes.literal_block(code, code, language="python", classes=["run-code"])
        if text := printed.getvalue().rstrip():
            box += nodes.literal_block(text, text, language="text", classes=["run-output"])
        return [*([box] if box.children else []), *self._pictures()]

    def _pictures(self) -> list[nodes.Node]:
        """The open figures of matplotlib, closed and saved."""
        if "matplotlib.pyplot" not in sys.modules:
            return []
        pyplot, pictures = sys.modules["matplotlib.pyplot"], []
        for number in pyplot.get_fignums():
            name = f"{self.env.docname.replace('/', '_')}_{self.lineno}_{number}.svg"
            (DOCS / "_generated").mkdir(exist_ok=True)
            pyplot.figure(number).savefig(
                DOCS / "_generated" / name, dpi=200, metadata={"Date": None}
            )
            pyplot.close(number)
            image = nodes.image(uri=f"/_generated/{name}", alt=self.options.get("alt", ""))
            pictures.append(nodes.figure("", image))
        return pictures


def setup(app):
    app.add_directive("run-python", RunPython)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
