"""The main table: at the terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gradspike.shown import counted, printable
from gradspike.statistics import Sample
from gradspike.tools.compare import escape
from gradspike.tools.compare.report import Comparison, Row

HEAD = (
    "method",
    "n",
    "test (%)",
    "95 % interval",
    "best by val (%)",
    "difference",
    "p (Holm)",
    "firing (%)",
    "gradient (%)",
    "over layers (%)",
    "energy (nJ)",
    "parameters",
    "training (s)",
    "peak memory (MiB)",
    "published (%)",
)


def cells(row: Row) -> list[str]:
    """One row as text."""
    published = escape.DASH
    if row.published is not None:
        spread = "" if row.published.spread is None else f" {escape.PLUS_MINUS} {row.published.spread:.2f}"
        published = f"{row.published.accuracy:.2f}{spread}"
    return [
        row.group.name,
        str(row.final.n),
        spread_of(row.final, 100),
        interval(row.final, 100),
        spread_of(row.best, 100),
        escape.DASH
        if row.paired is None
        else f"{100 * row.paired.sample.mean:+.2f} {interval(row.paired.sample, 100, '+')}",
        escape.DASH if row.paired is None or row.corrected_p is None else f"{row.paired.p:.3g} ({row.corrected_p:.3g})",
        spread_of(row.firing_rate, 100),
        spread_of(row.gradient, 100),
        spread_of(row.gradient_spread, 100),
        escape.DASH if row.energy is None else amount(row.energy.mean),
        escape.DASH if row.parameters is None else f"{row.parameters:,}",
        escape.DASH if row.seconds is None else amount(row.seconds.mean),
        escape.DASH if row.memory is None else f"{row.memory.mean:,.0f}",
        published,
    ]


def spread_of(sample: Sample | None, factor: float = 1) -> str:
    """`94.60 ± 0.64`; only the mean for a single value."""
    if sample is None:
        return escape.DASH
    mean = f"{factor * sample.mean:.2f}"
    return mean if sample.sd is None else f"{mean} {escape.PLUS_MINUS} {factor * sample.sd:.2f}"


def amount(value: float) -> str:
    """Three significant digits, or a whole number from 1,000 on: `23.5`, `37,099`."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def interval(sample: Sample | None, factor: float = 1, sign: str = "") -> str:
    """`[94.1, 95.2]`, the interval of the mean."""
    if sample is None or sample.low is None or sample.high is None:
        return escape.DASH
    return f"[{factor * sample.low:{sign}.2f}, {factor * sample.high:{sign}.2f}]"


def shown_columns(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without empty columns."""
    rows = [cells(row) for row in comparison.rows]
    kept = [place for place in range(len(HEAD)) if any(row[place] != escape.DASH for row in rows)]
    return [HEAD[place] for place in kept], [[row[place] for place in kept] for row in rows]


def caption(comparison: Comparison) -> str:
    """The explanation of the numbers."""
    sentences = [
        "Test accuracy after the last epoch, mean ± standard deviation over n seeds, with the 95 % interval of the "
        "mean (Student's; BCa bootstrap from 50 seeds). No epoch or run is selected by test results."
    ]
    if comparison.baseline is not None:
        sentences.append(f"Differences are to {comparison.baseline}, over shared seeds, in percentage points.")
    if any(row.gradient is not None for row in comparison.rows):
        sentences.append(
            "Gradient: share of neurons with |u - theta| < kappa / 2 at the last validation, and its standard "
            "deviation over layers."
        )
    return " ".join(sentences)


def print_comparison(comparison: Comparison, out: Console) -> None:
    """Print the table in two parts, because one would be too wide, and the notes."""
    head, rows = shown_columns(comparison)
    first = [place for place, name in enumerate(head) if HEAD.index(name) < HEAD.index("firing (%)")]
    second = [0, *(place for place in range(len(head)) if place not in first)]
    for part, title in ((first, "Test accuracy"), (second, "Inside, cost, and published numbers")):
        if len(part) < 2:
            continue
        table = Table(title=title, title_justify="left")
        for place in part:
            table.add_column(head[place], justify="left" if place == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(printable(row[place]) for place in part))
        out.print(table)
    out.print(printable(caption(comparison)))
    if comparison.verdict:
        out.print(comparison.verdict)
    for note in comparison.notes:
        out.print(printable(f"Note: {note}"))
    if comparison.excluded:
        out.print(f"Left out ({len(comparison.excluded)}):")
        for one in comparison.excluded:
            out.print(printable(f"  {one.path}: {one.reason}"), soft_wrap=True)


def markdown(comparison: Comparison) -> str:
    """A GitHub table, followed by the notes."""
    head, rows = shown_columns(comparison)
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    lines += [_line([escape.markdown_code(name), *numbers]) for name, *numbers in rows]
    return "\n".join(lines) + "\n\n" + "\n\n".join(escape.markdown(line) for line in _remarks(comparison)) + "\n"


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(words) + " |"


def _remarks(comparison: Comparison) -> list[str]:
    return [
        caption(comparison),
        *([comparison.verdict] if comparison.verdict else []),
        *comparison.notes,
        *([_excluded(comparison)] if comparison.excluded else []),
    ]


def _excluded(comparison: Comparison) -> str:
    count = len(comparison.excluded)
    return f"{counted(count, 'run')} {'was' if count == 1 else 'were'} left out."


def latex(comparison: Comparison) -> str:
    """A table environment that needs the package booktabs."""
    head, rows = shown_columns(comparison)
    body = [escape.latex_row(row) for row in [head, *rows]]
    note = [f"  % {' '.join(line.split())}" for line in _remarks(comparison)[1:]]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape.latex(caption(comparison))}}}",
            *note,
            rf"  \begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"    \toprule",
            f"    {body[0]}",
            r"    \midrule",
            *(f"    {line}" for line in body[1:]),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def as_csv(comparison: Comparison) -> str:
    """Unrounded numbers, one row per group."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    samples = ("final", "best", "firing_rate", "gradient", "gradient_spread", "energy", "seconds", "memory")
    parts = ("mean", "sd", "low", "high")
    differences = [f"difference_{part}" for part in parts]
    writer.writerow(
        ["group", "method", *(escape.csv(key) for key in comparison.grouping.swept), "n", "seeds"]
        + [f"{sample}_{part}" for sample in samples for part in parts]
        + ["parameters", "against", *differences, "p", "p_holm", "published", "published_spread"]
    )
    for row in comparison.rows:
        numbers = [getattr(sample, part, None) for name in samples for sample in [getattr(row, name)] for part in parts]
        pair = row.paired
        writer.writerow(
            [escape.csv(row.group.name), escape.csv(row.group.label)]
            + [escape.csv(row.group.settings.get(key)) for key in comparison.grouping.swept]
            + [row.final.n, " ".join(str(run.seed) for run in row.group.runs), *numbers, row.parameters]
            + [None if row.against is None else escape.csv(row.against.name)]
            + [getattr(pair.sample, part) if pair else None for part in parts]
            + [pair.p if pair else None, row.corrected_p]
            + ([row.published.accuracy, row.published.spread] if row.published else [None, None])
        )
    return out.getvalue()
