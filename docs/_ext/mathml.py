"""LaTeX to MathML when the site is built: no JavaScript, no fonts from elsewhere.

Sphinx asks a "math renderer" to write inline and displayed equations. This one calls
latex2mathml, checks what comes back, and writes MathML, which browsers draw themselves. The
converter passes over most errors in silence; `to_mathml` does not, so a slip fails the build.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number

# Number of children that each element must have (MathML Core, sections 3.3 and 3.4).
CHILDREN = {
    "mfrac": 2,
    "msub": 2,
    "msup": 2,
    "msubsup": 3,
    "munder": 2,
    "mover": 2,
    "mroot": 2,
    "munderover": 3,
}
NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"


def to_mathml(latex: str, display: str) -> str:
    """MathML of one formula; ValueError if any part of it was not understood."""
    _check_braces(latex)
    source = re.sub(r"\\(begin|end)\{(aligned|split)\}", r"\\\1{align*}", latex.strip())
    source = re.sub(r"\\(begin|end)\{gathered\}", r"\\\1{matrix}", source)
    try:
        root = ElementTree.fromstring(convert(source, display=display))
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    for element in root.iter():
        element.tag = name = element.tag.removeprefix(NAMESPACE)
        if "\\" in (element.text or ""):
            raise ValueError(f"unknown command {element.text}")
        if name in ("mi", "mo") and (element.text or "").strip() == "&":
            raise ValueError("an & outside of an alignment")
        if name in CHILDREN and len(element) != CHILDREN[name]:
            raise ValueError(f"<{name}> has {len(element)} parts instead of {CHILDREN[name]}")
        if name == "mtable":  # the attributes of MathML 3 that browsers leave to CSS
            for attribute in ("columnspacing", "rowspacing", "columnalign"):
                element.attrib.pop(attribute, None)
            if element.attrib.get("displaystyle") == "true":
                element.set("class", "aligned")
        if name == "mtd" and "columnalign" in element.attrib:
            element.set("style", f"text-align: {element.attrib.pop('columnalign')}")
    for row in root.iter():
        _space(row)
    if root.find(".//mtable[@class='aligned']") is not None:
        for row in root.iter("mtr"):
            for column, cell in enumerate(row):
                cell.set("style", f"text-align: {'left' if column % 2 else 'right'}")
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _space(row: ElementTree.Element) -> None:
    """TeX's spacing where MathML's differs: log x, a/b, = -x."""
    if row.tag not in ("mrow", "mtd", "msqrt"):
        return
    previous, place = None, 0
    for element in list(row):
        text = (element.text or "").strip()
        if element.tag == "mo" and text in ("/", "|"):
            element.set("lspace", "0")
            element.set("rspace", "0")
        if element.tag == "mo" and text in ("\u2212", "+") and previous is not None:
            before = (previous.text or "").strip()
            if previous.tag == "mo" and before not in (")", "]", "}", "|", "\u2032"):
                element.set("form", "prefix")
        named = _is_function(element)
        if previous is not None and (
            (named and previous.tag not in ("mo", "mspace"))
            or (_is_function(previous) and element.tag not in ("mo", "mspace") and not named)
            or (_is_function(previous) and named)
        ):
            row.insert(place, ElementTree.Element("mspace", width="0.167em"))
            place += 1
        previous, place = element, place + 1


def _is_function(element: ElementTree.Element) -> bool:
    base = element[0] if element.tag in ("msup", "msub") and len(element) else element
    return base.tag == "mi" and len((base.text or "").strip()) > 1


def _check_braces(latex: str) -> None:
    depth = 0
    for match in re.finditer(r"\\.|[{}]", latex):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth < 0:
            raise ValueError("a closing brace without an opening one")
    if depth:
        raise ValueError("an opening brace without a closing one")
    if latex.count(r"\left") - latex.count(r"\leftarrow") != (
        latex.count(r"\right") - latex.count(r"\rightarrow")
    ):
        raise ValueError(r"\left and \right do not pair")


def _render(translator, node: nodes.Node, display: str) -> str:
    try:
        return to_mathml(node.astext(), display)
    except ValueError as error:
        place = f"{translator.builder.current_docname}:{node.line or '?'}"
        raise ExtensionError(f"{place}: LaTeX not understood: {error}\n{node.astext()}") from error


def visit_inline(translator, node: nodes.math) -> None:
    translator.body.append(_render(translator, node, "inline"))
    raise nodes.SkipNode


def visit_block(translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math-block"))
    formula = _render(translator, node, "block")
    translator.body.append(f'<div class="math-scroll">{formula}</div>')
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
