"""The main table and its remarks: at the terminal, in Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from gradspike.cost.neurobench_metrics import METRICS
from gradspike.shown import counted, listed, printable
from gradspike.statistics import INTERVALS
from gradspike.tools.compare import escape
from gradspike.tools.compare.aggregate import FEWEST, Aggregate, Estimate
from gradspike.tools.compare.baselines import METHOD
from gradspike.tools.compare.columns import KEYS, NAME, difference, equal_line, p_values, split_columns
from gradspike.tools.compare.energy_reason import energy_reason
from gradspike.tools.compare.report import Comparison

Cells = tuple[list[str], list[list[str]]]
"""Heading and rows."""
FRAME = len("│  ")
"""Around a column. A table has one more line."""


def caption(comparison: Comparison, keys: Sequence[str] | None = None) -> str:
    """The explanation of the numbers in the columns `keys`, by default in all of them."""
    shown = KEYS if keys is None else keys
    sentences = []
    if {"test", "interval"} & set(shown):
        spread = ", mean ± standard deviation over n seeds" if "test" in shown else ""
        interval = f"{', with' if 'test' in shown else ':'} the 95 % interval of the mean ({INTERVALS})"
        sentences.append(f"Test accuracy after the last epoch{spread}{interval if 'interval' in shown else ''}.")
        sentences.append("No epoch or run is selected by test results.")
    if comparison.baseline is not None and {"difference", "p"} & set(shown):
        sentences.append(
            f"Differences are to {comparison.baseline}, over shared seeds, in percentage points, with 95 % intervals"
            f"{'' if 'interval' in shown else f' ({INTERVALS})'}."
        )
    if any(row.gradient is not None for row in comparison.rows) and {"gradient", "layers"} & set(shown):
        sentences.append(
            "Gradient: share of neurons with |u - theta| < kappa / 2 at the last validation, and its standard "
            "deviation over layers."
        )
    if "epoch" in shown and any(row.epoch_seconds is not None for row in comparison.rows):
        sentences.append("s per epoch: median training time of an epoch, without the first one and without validation.")
    return " ".join(sentences)


def crossed(comparison: Comparison) -> Cells:
    """The differences of differences."""
    head = ["group", "difference", "minus that of", "their difference", "p (Holm)"]
    own = {row.group.name: row.paired for row in comparison.rows}
    rows = []
    for one in comparison.interactions:
        pair = own[one.group.name]
        rows.append(
            [
                one.group.name,
                escape.DASH if pair is None else difference(pair.sample),
                one.reference.name,
                difference(one.paired.sample),
                p_values(one.paired.p, one.corrected_p),
            ]
        )
    return head, rows


def over_data_sets(aggregate: Aggregate) -> Cells:
    """The results over several data sets."""
    head = [METHOD, "n", "IQM (%)", "95 % interval"]
    if aggregate.baseline is not None:
        head += [f"better than {aggregate.baseline} (%)", "95 % interval"]
    rows = []
    for line in aggregate.lines:
        cells = [line.name, str(len(line.seeds)), *_estimate(line.iqm)]
        if aggregate.baseline is not None:
            cells += _estimate(line.improvement)
        rows.append(cells)
    return head, rows


def _estimate(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return [escape.DASH, escape.DASH]
    bounds = escape.DASH if estimate.low is None else f"[{100 * estimate.low:.2f}, {100 * (estimate.high or 0):.2f}]"
    return [f"{100 * estimate.value:.2f}", bounds]


def aggregate_note(aggregate: Aggregate) -> str:
    """The explanation of the results over data sets."""
    missing = ""
    if aggregate.left_out:
        missing = f" Left out, because a data set or a shared seed is missing: {listed(aggregate.left_out)}."
    return (
        f"Over {', '.join(aggregate.data_sets)}: interquartile mean (IQM) of the test accuracies of all seeds and data "
        "sets, and the probability that a run is better than one of the baseline on the same data set, as in rliable "
        f"(Agarwal et al. 2021). Intervals: stratified bootstrap, expanded for few seeds (Hesterberg 2015); none with "
        f"fewer than {FEWEST} seeds, or if all resamples agree.{missing}"
    )


def remarks(comparison: Comparison) -> list[str]:
    """All sentences below the table, the caption aside."""
    reason = energy_reason(comparison)
    return [
        *([comparison.verdict] if comparison.verdict else []),
        *comparison.remarks,
        *([reason] if reason else []),
        *comparison.notes,
    ]


def print_comparison(comparison: Comparison, out: Console, keys: Sequence[str] | None = None) -> None:
    """Print the table in two parts, because one would be too wide, and the notes. keys: the chosen columns."""
    columns, equal = split_columns(comparison, keys)
    if comparison.verdict:
        out.print(printable(comparison.verdict))
    if equal:
        out.print(printable(equal_line(equal)))
    parts = (
        {"Test accuracy": [one for one in columns if not one.inside],
         "Inside, cost, and published numbers": [one for one in columns if one.inside]}
        if keys is None else {"Results": columns}
    )  # fmt: skip
    for title, part in parts.items():
        if part:
            cells = [[one.text(row) for one in (NAME, *part)] for row in comparison.rows]
            _print_table(out, title, [one.head for one in (NAME, *part)], cells)
    if comparison.interactions:
        _print_table(out, "Difference of differences", *crossed(comparison))
    if comparison.aggregate is not None:
        _print_table(out, "Over the data sets", *over_data_sets(comparison.aggregate))
        out.print(printable(aggregate_note(comparison.aggregate)))
    out.print(printable(caption(comparison, keys)))
    for line in remarks(comparison)[bool(comparison.verdict) :]:
        out.print(printable(f"Note: {line}"))
    if comparison.excluded:
        out.print(f"Left out ({len(comparison.excluded)}):")
        for one in comparison.excluded:
            out.print(printable(f"  {one.path}: {one.reason}"), soft_wrap=True)


def _print_table(out: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    first, *others = (_least_width(name, [row[place] for row in rows]) for place, name in enumerate(head))
    first = min(first, out.width // 3)  # long names are folded, and texts that fill a line
    least = [first, *(min(one, out.width - first - 2 * FRAME - 1) for one in others)]
    for number, places in enumerate(fitting_parts(least, out.width)):
        table = Table(title=title if number == 0 else f"{title}, continued", title_justify="left")
        # Left to itself, rich narrows the widest columns, also below the width of their numbers.
        fits = (
            sum(max(cell_len(cell) for cell in (head[p], *(row[p] for row in rows))) + FRAME for p in places)
            < out.width
        )
        for place in places:
            table.add_column(
                printable(head[place]),
                justify="left" if place == 0 else "right",
                overflow="fold",
                width=None if fits else least[place],
            )
        for row in rows:
            table.add_row(*(printable(row[place]) for place in places))
        out.print(table)


def _least_width(name: str, cells: Sequence[str]) -> int:
    """Of a column that breaks no cell, and its heading only between words."""
    return max(map(cell_len, [*name.split(), *cells]))


def fitting_parts(least: Sequence[int], width: int) -> list[list[int]]:
    """The columns, by number, of tables that are not wider than `width`. Each has the first column, of names.

    least: the least width of each column.
    """
    first = least[0] + FRAME + 1
    parts, used = [[0]], first
    for place in range(1, len(least)):
        if used + least[place] + FRAME > width and len(parts[-1]) > 1:
            parts.append([0])
            used = first
        parts[-1].append(place)
        used += least[place] + FRAME
    return parts


def markdown(comparison: Comparison, keys: Sequence[str] | None = None) -> str:
    """GitHub tables, followed by the notes."""
    columns, equal = split_columns(comparison, keys)
    head = [one.head for one in (NAME, *columns)]
    rows = [[one.text(row) for one in (NAME, *columns)] for row in comparison.rows]
    parts = [escape.markdown(comparison.verdict)] if comparison.verdict else []
    parts += [escape.markdown(equal_line(equal))] if equal else []
    parts.append(_table(head, rows))
    if comparison.interactions:
        parts.append(_table(*crossed(comparison), names=(0, 2)))
    if comparison.aggregate is not None:
        parts += [_table(*over_data_sets(comparison.aggregate)), escape.markdown(aggregate_note(comparison.aggregate))]
    parts.append(escape.markdown(caption(comparison, keys)))
    parts += [escape.markdown(line) for line in remarks(comparison)[bool(comparison.verdict) :]]
    if comparison.excluded:
        parts.append(escape.markdown(excluded_line(comparison)))
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], names: Sequence[int] = (0,)) -> str:
    lines = [_line([escape.markdown(name) for name in head]), _line(["---", *["---:"] * (len(head) - 1)])]
    for row in rows:
        lines.append(_line([escape.markdown_code(cell) if at in names else cell for at, cell in enumerate(row)]))
    return "\n".join(lines)


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(words) + " |"


def excluded_line(comparison: Comparison) -> str:
    """How many runs are not in the table."""
    count = len(comparison.excluded)
    return f"{counted(count, 'run')} {'was' if count == 1 else 'were'} left out."


def as_csv(comparison: Comparison) -> str:
    """Unrounded numbers, one row per group."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    samples = (
        *("final", "best", "firing_rate", "gradient", "gradient_spread"),
        *("energy", "epoch_seconds", "seconds", "memory"),
    )
    parts = ("mean", "sd", "low", "high")
    differences = [f"difference_{part}" for part in parts]
    writer.writerow(
        ["group", "method", *(escape.csv(key) for key in comparison.grouping.swept), "n", "seeds"]
        + [f"{sample}_{part}" for sample in samples for part in parts]
        + [f"{metric.name}_{part}" for metric in METRICS for part in parts]
        + ["parameters", "against", *differences, "p", "p_holm", "published", "published_spread"]
    )
    for row in comparison.rows:
        found = [*(getattr(row, name) for name in samples), *(row.neurobench.get(metric.name) for metric in METRICS)]
        numbers = [getattr(sample, part, None) for sample in found for part in parts]
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
