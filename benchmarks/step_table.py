"""Tables of benchmarks/step.py: ratios with their spread, as Markdown, between markers in a page."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from gradspike.errors import UserError
from step_worker import Setting

TABLES_END = "<!-- step tables end: new ones go above this line -->"


@dataclass
class Measured:
    """Results of one candidate in one setting: seconds per step, one number per round; peak bytes and loss of the first
    step."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    failure: str | None = None
    loss: float = float("nan")


Results = Mapping[str, Mapping[str, Measured]]
"""By name of the setting, then by name of the candidate, in the order of the rows."""


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, 10th and 90th percentile, interpolated linearly, so always between measured values."""
    low, middle, high = np.percentile(values, [10, 50, 90])
    return float(middle), float(low), float(high)


def best_twin(row: Mapping[str, Measured], twins: Sequence[str]) -> str:
    """The faster form of the ReLU twin, by median. Raises UserError if none ran."""
    ran = [name for name in twins if row[name].failure is None]
    if not ran:
        raise UserError("; ".join(f"{name}: {row[name].failure}" for name in twins))
    return min(ran, key=lambda name: spread(row[name].seconds)[0])


def ratio_cell(mine: Measured, twin: Measured) -> str:
    """Ratio to the twin in the same round: median and spread."""
    if mine.failure is not None:
        return "-"
    if mine is twin:
        return "1.00"
    middle, low, high = spread([a / b for a, b in zip(mine.seconds, twin.seconds, strict=True)])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def memory_cell(mine: Measured, twin: Measured) -> str:
    """Ratio to the peak of the twin."""
    return "-" if mine.failure is not None else f"{mine.peak_bytes / twin.peak_bytes:.2f}"


def table(results: Results, twins: Sequence[str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Head, rows and notes. Time and memory of a setting are side by side. Notes have the twin's own numbers, and the
    reason if a candidate did not run.
    """
    head, notes = ["candidate"], []
    columns: list[dict[str, tuple[str, str]]] = []
    for setting, row in results.items():
        best = best_twin(row, twins)
        twin = row[best]
        head += [f"{setting}: time", "memory"]
        columns.append({name: (ratio_cell(one, twin), memory_cell(one, twin)) for name, one in row.items()})
        seconds, low, high = (1000 * value for value in spread(twin.seconds))
        notes.append(
            f"{setting}: 1.00 is {best}, {seconds:,.1f} ms per step ({low:,.1f} to {high:,.1f}) and "
            f"{twin.peak_bytes / 2**20:,.1f} MiB at its peak."
        )
        notes += [f"{setting}: {name}: {one.failure}" for name, one in row.items() if one.failure is not None]
    names = dict.fromkeys(name for row in results.values() for name in row)
    rows = [[name, *(cell for column in columns for cell in column.get(name, ("-", "-")))] for name in names]
    return head, rows, notes


def shown(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the terminal, with numbers aligned right."""
    found = Table(title=title, title_justify="left")
    for index, word in enumerate(head):
        found.add_column(word, justify="right" if index else "left")
    for row in rows:
        found.add_row(*row)
    return found


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A Markdown table with numbers aligned right, and the notes as a list below it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def updated(page: str, key: str, body: str) -> str:
    """The page with the block of this key replaced, or added above the line that ends the tables.

    Raises UserError if a block has no end, or if the page has no line that ends the tables.
    """
    start, end = f"<!-- step table: {key} -->", f"<!-- end of step table: {key} -->"
    block = f"{start}\n{body}\n{end}"
    if start in page:
        before, _, rest = page.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise UserError(f"The page has the line {start} without {end}.")
        return before + block + after
    if TABLES_END not in page:
        raise UserError(f"The page has no line {TABLES_END}; new tables go above it.")
    return page.replace(TABLES_END, f"{block}\n\n{TABLES_END}")


def check_page(path: Path) -> None:
    """Check the page before measuring. Raises UserError if it cannot be updated."""
    if not path.is_file():
        raise UserError(f"--write {path}: no such file.")
    page = path.read_text(encoding="utf-8")
    if TABLES_END not in page:
        raise UserError(f"--write {path}: has no line {TABLES_END}; new tables go above it.")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"--write {path}: its folder cannot be written to.")


def write_page(path: Path, key: str, body: str) -> None:
    """Update a page through a temporary file next to it."""
    page = updated(path.read_text(encoding="utf-8"), key, body)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as new:
        new.write(page)
    os.chmod(new.name, path.stat().st_mode)
    os.replace(new.name, path)


def cpu_name() -> str:
    """The processor's name, as Linux reports it."""
    import platform

    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def setting_named(word: str) -> Setting:
    """The setting of a name such as `fp32-contiguous`; the inverse of Setting.name."""
    precision, _, layout = word.partition("-")
    return Setting(precision, layout, deterministic=True)
