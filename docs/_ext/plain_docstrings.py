"""Docstrings as the code has them, plain text with a little Markdown, turned into reST.

A docstring is read in the terminal first, so it has ASCII formulas in indented blocks, Markdown
tables, `code` in single backticks and Google sections (Args, Raises). Before napoleon's parser
sees it:

    indented block            -> literal block
    Markdown table            -> list-table
    `code`                    -> ``code``
    * | _ \\ in running text   -> escaped

Names in annotations are looked up in the module that wrote them: one of ours becomes a link, a
third party's or the language's own is left as text, and one that does not exist fails the build.
"""

from __future__ import annotations

import builtins
import importlib
import re

from docutils import nodes
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.nodes import make_refnode

NAPOLEON = Config(
    napoleon_use_param=False,  # "x, y: text" may name several
    napoleon_use_rtype=False,
    napoleon_custom_sections=[("Attributes", "params_style")],
)
SECTIONS = (
    "args|arguments|parameters|attributes|returns|return|yields|raises|warns|note|notes|example|"
    "examples|references|reference|see also|warning|warnings|todo"
)
HEADER = re.compile(rf"^({SECTIONS}):\s*$", re.IGNORECASE)
CODE_HEADER = re.compile(r"^(example|examples):\s*$", re.IGNORECASE)
ITEM = re.compile(r"^(\s*)([-*+]|\d+[.)])\s+")


def escape(text: str) -> str:
    """Running text with `code` spans, as reST that means the same."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    for i, part in enumerate(parts):
        if i % 2:
            glue_before = r"\ " if re.search(r"\w$", "".join(parts[:i])) else ""
            glue_after = r"\ " if re.match(r"\w", parts[i + 1]) else ""
            parts[i] = f"{glue_before}``{part.strip('`')}``{glue_after}"
        else:
            part = part.replace("\\", r"\\").replace("*", r"\*").replace("|", r"\|")
            part = re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)
            parts[i] = part.replace("`", r"\`")
    return "".join(parts)


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def to_rest(lines: list[str]) -> list[str]:
    """The lines of one docstring, converted."""
    out: list[str] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        if HEADER.match(line):
            end = _end_of_block(lines, i + 1, 1)
            body = lines[i + 1 : end]
            if CODE_HEADER.match(line):
                out += ["", f".. rubric:: {line.strip().rstrip(':')}", ""]
                out += _literal(body, "python")
            else:
                out += ["", line, *map(escape_section_line, body)]
            i = end
        elif line.lstrip().startswith("|") and i + 1 < len(lines) and _is_rule(lines[i + 1]):
            end = i
            while end < len(lines) and lines[end].lstrip().startswith("|"):
                end += 1
            out += _table(lines[i:end])
            i = end
        elif line.strip() and indent_of(line) >= 4:
            end = _end_of_block(lines, i, 4)
            out += _literal(lines[i:end], "text")
            i = end
        elif ITEM.match(line):
            end = i + 1
            while (
                end < len(lines)
                and lines[end].strip()
                and (ITEM.match(lines[end]) or indent_of(lines[end]) > 0)
            ):
                end += 1
            out += ["", *(_list_line(item) for item in lines[i:end]), ""]
            i = end
        elif i + 1 < len(lines) and re.fullmatch(r"(-{3,}|={3,})", lines[i + 1].strip() or "x"):
            out += ["", f".. rubric:: {escape(line.strip())}", ""]
            i += 2
        elif line.startswith(">>>"):
            end = i
            while end < len(lines) and lines[end].strip():
                end += 1
            out += ["", *lines[i:end], ""]
            i = end
        else:
            out.append(escape(line))
            i += 1
    return out


def _end_of_block(lines: list[str], start: int, depth: int) -> int:
    end = start
    while end < len(lines) and (not lines[end].strip() or indent_of(lines[end]) >= depth):
        end += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return end


def _literal(lines: list[str], language: str) -> list[str]:
    full = [line for line in lines if line.strip()]
    margin = min(map(indent_of, full), default=0)
    return ["", f".. code-block:: {language}", "", *("    " + s[margin:] for s in lines), ""]


def _list_line(line: str) -> str:
    match = ITEM.match(line)
    return match.group() + escape(line[match.end() :]) if match else escape(line)


def escape_section_line(line: str) -> str:
    """A line of Args, Raises, ...: the `name (type):` in front is napoleon's to escape."""
    match = re.match(r"^(\s+\*{0,2}[\w, *]+(?: \([^)]*\))?:)(\s.*|)$", line)
    return match.group(1) + escape(match.group(2)) if match else escape(line)


def _is_rule(line: str) -> bool:
    return bool(re.fullmatch(r"\s*\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?\s*)?", line))


def _cells(row: str) -> list[str]:
    inner = row.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _table(rows: list[str]) -> list[str]:
    table = [_cells(rows[0]), *map(_cells, rows[2:])]
    out = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in table:
        if len(row) != len(table[0]):
            raise ValueError(f"a table row has {len(row)} cells, its head {len(table[0])}: {row}")
        for j, cell in enumerate(row):
            out.append(f"   {'* -' if j == 0 else '  -'} {escape(cell)}")
    return [*out, ""]


def process_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    # Called here and not loaded as an extension: it takes "a: b" in the docstring of an attribute
    # or a property for a type and a description.
    kind = what if what in ("module", "class", "exception") else "method"
    lines[:] = GoogleDocstring(to_rest(lines), NAPOLEON, app, kind, name, obj, options).lines()


def process_signature(app, what, name, obj, options, signature, returns):
    """A dataclass default made by a factory is written `<factory>`, which is no expression."""
    return signature and signature.replace("<factory>", "..."), returns


# ---- names in annotations ---------------------------------------------------------------------


def resolve_annotation(app, env, node, contnode):
    """Links for our own names, plain text for other people's, nothing (a warning) otherwise."""
    if node.get("refdomain") != "py" or node.get("reftype") not in ("class", "obj", "exc", "data"):
        return None
    target = node["reftarget"]
    found, value = _look_up(target, node.get("py:module"))
    if not found:
        return None
    module = getattr(value, "__module__", None) or ""
    if isinstance(value, type) and module.split(".")[0] == "sde_diffusion":
        full = f"{module}.{value.__qualname__}"
        entry = env.get_domain("py").objects.get(full)
        if entry is not None:
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, full
            )
    return contnode if isinstance(contnode, nodes.Node) else None


def _look_up(target: str, module_name: str | None):
    head, *rest = target.split(".")
    places = []
    if module_name:
        places.append(importlib.import_module(module_name))
    places.append(builtins)
    for place in places:
        if hasattr(place, head):
            value = getattr(place, head)
            break
    else:
        try:
            value = importlib.import_module(head)
        except ImportError:
            return False, None
    for i, part in enumerate(rest):
        if not hasattr(value, part):
            try:
                value = importlib.import_module(".".join([head, *rest[: i + 1]]))
                continue
            except ImportError:
                return False, None
        value = getattr(value, part)
    return True, value


def setup(app):
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("missing-reference", resolve_annotation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
