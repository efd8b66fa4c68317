"""The tables in LaTeX: with booktabs, in the width of a paper's column if they fit, else over both columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gradspike.tools.compare import escape
from gradspike.tools.compare.columns import NAME, equal_line, split_columns
from gradspike.tools.compare.report import Comparison
from gradspike.tools.compare.table import aggregate_note, caption, crossed, excluded_line, over_data_sets, remarks

COLUMN, PAGE = 229, 345
"""The width of a column and of a page of `article` in points; those of conferences are wider."""
SIZES = {"small": 9.0, "footnotesize": 8.0, "scriptsize": 7.0}
GAP = 4.0
"""Points on either side of a cell (tabcolsep); none outside the table."""
DEFAULT = ("test", "difference")
WITHOUT_BASELINE = ("n", "test", "interval")

_WIDTHS = {**dict.fromkeys(".,:;[]()!'|ijl ", 0.29), **dict.fromkeys("mwMW%&", 0.85), **dict.fromkeys("+-±=<>", 0.78)}


def latex(comparison: Comparison, keys: Sequence[str] | None = None) -> str:
    """One or more table environments. The best accuracy is bold only if it differs from all others.

    keys: the chosen columns; by default those that fit a paper's column: accuracy and difference.
    """
    if keys is None:
        keys = DEFAULT if comparison.baseline is not None else WITHOUT_BASELINE
    columns, equal = split_columns(comparison, keys)
    said = [caption(comparison, keys), equal_line(equal)]
    texts = [[column.text(row) for column in (NAME, *columns)] for row in comparison.rows]
    places = [row.group.name for row in comparison.rows]
    bold = None
    if comparison.best is not None and "test" in keys:
        bold = (places.index(comparison.best), 1 + list(keys).index("test"))
    heads = [column.head for column in (NAME, *columns)]
    notes = remarks(comparison) + ([excluded_line(comparison)] if comparison.excluded else [])
    tables = [_table(heads, texts, " ".join(one for one in said if one), notes, bold)]
    if comparison.interactions:
        title = f"Difference of differences to {comparison.reference}, in percentage points."
        tables.append(_table(*crossed(comparison), title, names=(0, 2)))
    if comparison.aggregate is not None:
        tables.append(_table(*over_data_sets(comparison.aggregate), aggregate_note(comparison.aggregate)))
    return "% needs \\usepackage{booktabs}\n" + "\n".join(tables)


def _name(text: str, kind: str) -> str:
    """A cell with a name, which may break after `_` and `=` unless its column is one line high."""
    escaped = escape.latex(text)
    if kind == "l":
        return escaped
    breaking = escaped.replace(r"\_", r"\_\allowbreak{}").replace("=", r"=\penalty200{}")
    return rf"\raggedright {breaking}"


def _number(text: str) -> str:
    """A cell with numbers; their signs are in math mode, so that a minus is no hyphen."""
    return re.sub(r"(?<![\w}-])([-+])(?=\d)", r"$\1$", escape.latex(text))


def _table(
    head: Sequence[str],
    texts: Sequence[Sequence[str]],
    title: str,
    notes: Sequence[str] = (),
    bold: tuple[int, int] | None = None,
    names: Sequence[int] = (0,),
) -> str:
    """A table environment. notes: comments in it. bold: row and column of a cell. names: columns without numbers."""
    star, size, kinds = _layout([head, *texts], names)
    rows = [[_name(one, kinds[at]) if at in names else _number(one) for at, one in enumerate(row)] for row in texts]
    if bold is not None:
        rows[bold[0]][bold[1]] = rf"\textbf{{{rows[bold[0]][bold[1]]}}}"
    lines = [escape.latex_row([escape.latex(one) for one in head]), *(escape.latex_row(row) for row in rows)]
    return "\n".join(
        [
            rf"\begin{{table{star}}}",
            r"  \centering",
            rf"  \caption{{{escape.latex(title)}}}",
            *(f"  % {' '.join(line.split())}" for line in notes),
            rf"  \{size}\setlength{{\tabcolsep}}{{{GAP:g}pt}}",
            rf"  \begin{{tabular}}{{@{{}}{''.join(kinds)}@{{}}}}",
            r"    \toprule",
            f"    {lines[0]}",
            r"    \midrule",
            *(f"    {line}" for line in lines[1:]),
            r"    \bottomrule",
            r"  \end{tabular}",
            rf"\end{{table{star}}}",
            "",
        ]
    )


def _layout(cells: Sequence[Sequence[str]], names: Sequence[int]) -> tuple[str, str, list[str]]:
    """`*` for both columns, the size of the letters, and how each column is set: names in one line, or in several if
    the table would be too wide."""
    every = range(len(cells[0]))
    for width, star in ((COLUMN, ""), (PAGE, "*")):
        for size, points in SIZES.items():
            left = width - 2 * GAP * (len(every) - 1)
            left -= sum(max(_width(row[at]) for row in cells) * points for at in every if at not in names)
            whole = {at: max(_width(row[at]) for row in cells) * points for at in names}
            parts = {at: max(map(_width, _parts(cells, at))) * points for at in names}
            if sum(whole.values()) <= left:
                return star, size, ["l" if at in names else "r" for at in every]
            if sum(parts.values()) <= left:
                spare = (left - sum(parts.values())) / len(names)
                return star, size, [f"p{{{parts[at] + spare:.0f}pt}}" if at in names else "r" for at in every]
    return "*", "scriptsize", [f"p{{{parts[at]:.0f}pt}}" if at in names else "r" for at in every]


def _parts(cells: Sequence[Sequence[str]], at: int) -> list[str]:
    """The pieces of the names of a column between which a line may break."""
    return [part for row in cells for part in re.split(r"(?<=[ _=])", row[at]) if part] or [""]


def _width(text: str) -> float:
    """The width of a text in Computer Modern, in em; rather too wide."""
    return sum(_WIDTHS.get(letter, 0.75 if letter.isupper() else 0.53) for letter in text)
