"""The HTML page: one file that contains its data and needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from gradspike.json_text import to_json
from gradspike.tools.compare import escape
from gradspike.tools.compare.latex import latex
from gradspike.tools.compare.report import Comparison
from gradspike.tools.compare.table import markdown

SCRIPTS = ("marks.js", "export.js", "charts.js", "figures.js", "app.js")


def render(comparison: Comparison, data: dict[str, Any], keys: Sequence[str] | None = None) -> str:
    """The page, with the tables of `comparison` for copying and `data` for drawing. keys: the chosen columns."""
    parts = files(__package__) / "page"

    def read(name: str) -> str:
        return (parts / name).read_text(encoding="utf-8")

    contents = {**data, "markdown": markdown(comparison, keys), "latex": latex(comparison, keys)}
    # In a script element `</` would end the data, and `<!--` would change how they are parsed.
    embedded = to_json(contents, separators=(",", ":")).replace("<", "\\u003c")
    page = read("page.html")
    values = {
        "TITLE": escape.html(data["title"]),
        "STYLE": read("page.css"),
        "DATA": embedded,
        "SCRIPT": "\n".join(read(name) for name in SCRIPTS),
    }
    head, *rest = page.split("{{")
    # Fill in piece by piece, so that placeholders inside the data stay unchanged.
    pieces = [head]
    for piece in rest:
        name, _, after = piece.partition("}}")
        pieces += [values[name], after]
    return "".join(pieces)
