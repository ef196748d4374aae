"""The `run-python` directive: code that the build runs, with what it printed beneath.

The blocks of a page share one namespace, in order. An exception fails the build, so a number
printed on a page is a number that this version of the package gives.
"""

from __future__ import annotations

import contextlib
import io
import traceback
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).parents[2] / "sde_diffusion"


class RunPython(SphinxDirective):
    has_content = True

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
        shown = nodes.literal_block(code, code, language="python", classes=["run-code"])
        box = nodes.container("", shown, classes=["run-python"])
        if text := printed.getvalue().rstrip():
            box += nodes.literal_block(text, text, language="text", classes=["run-output"])
        return [box]


def setup(app):
    app.add_directive("run-python", RunPython)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
