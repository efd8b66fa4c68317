"""Escapes text for Markdown, LaTeX, CSV and HTML, so that names and settings appear unchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

PLUS_MINUS = "±"
DASH = "–"  # noqa: RUF001

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    PLUS_MINUS: r"$\pm$",
    DASH: "--",
}


def latex(text: str) -> str:
    """`text` as LaTeX prints it."""
    # An empty group between hyphens, because -- would become a dash.
    parts = re.split("(?<=-)(?=-)", " ".join(text.split()))
    return "{}".join("".join(_LATEX.get(letter, letter) for letter in part) for part in parts)


def latex_row(cells: Sequence[str]) -> str:
    """A row of a table, from its cells as LaTeX."""
    line = " & ".join(cells)
    # After the \\\\ of the line before, [ would begin its optional argument and * its starred form.
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"


def markdown(text: str) -> str:
    """`text` in a paragraph or a table's cell."""
    return re.sub(r"([\\`*_\[\]~]|[<&](?=[\w/!?#]))", r"\\\1", " ".join(text.split()))


def markdown_code(text: str) -> str:
    """`text` as code in a table's cell."""
    line = " ".join(text.split())
    if not re.search(r"[`|\\]", line):
        return f"`{line}`"
    # Backslashes do not escape in code, so write the characters as entities.
    return f"<code>{re.sub(r'[^A-Za-z0-9 .,=-]', lambda one: f'&#{ord(one[0])};', line)}</code>"


def csv(value: Any) -> Any:
    """A cell, with an apostrophe before text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def html(text: str) -> str:
    """`text` in an element or a quoted attribute."""
    return escape(text)
