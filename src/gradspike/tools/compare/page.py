"""The HTML page: one file, nothing from the network, its data inside."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import Any

from gradspike.tools.compare.report import Comparison
from gradspike.tools.compare.table import latex, markdown

SCRIPTS = ("marks.js", "charts.js", "figures.js", "app.js")


def render(comparison: Comparison, data: dict[str, Any]) -> str:
    """The page."""
    parts = files(__package__) / "page"

    def read(name: str) -> str:
        return (parts / name).read_text(encoding="utf-8")

    contents = {**data, "markdown": markdown(comparison), "latex": latex(comparison)}
    # Inside a script element only `</` can end the data, and `<!--` change how they are read.
    embedded = json.dumps(contents, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = read("page.html")
    values = {
        "TITLE": html.escape(str(data["title"])),
        "STYLE": read("page.css"),
        "DATA": embedded,
        "SCRIPT": "\n".join(read(name) for name in SCRIPTS),
    }
    head, *rest = page.split("{{")
    # Piece by piece, so that nothing that looks like a placeholder is looked for inside of the data.
    pieces = [head]
    for piece in rest:
        name, _, after = piece.partition("}}")
        pieces += [values[name], after]
    return "".join(pieces)
