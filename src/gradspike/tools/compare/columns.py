"""The columns of the main table, and what is equal in all its rows. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradspike.cost.neurobench_metrics import METRICS, Metric
from gradspike.errors import ConfigError, unknown
from gradspike.tools.compare import escape

if TYPE_CHECKING:
    from gradspike.statistics import Sample
    from gradspike.tools.compare.report import Comparison, Row


@dataclass(frozen=True)
class Column:
    """A column: its name for --columns, its heading and its text in a row."""

    key: str
    head: str
    text: Callable[[Row], str]
    once: bool = False
    """Whether it stands above the table if it is equal in all rows."""
    inside: bool = False
    """Whether the terminal shows it in the second part."""
    asked: bool = False
    """Whether only --columns shows it."""


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


def difference(sample: Sample) -> str:
    """`-0.72 [-1.35, -0.10]`, in percentage points."""
    bounds = "" if sample.low is None else f" {interval(sample, 100, '+')}"
    return f"{100 * sample.mean:+.2f}{bounds}"


def p_values(p: float, corrected: float | None) -> str:
    """`0.0625 (0.812)`: the p-value, and Holm's in brackets."""
    return escape.DASH if corrected is None else f"{p:.3g} ({corrected:.3g})"


def _mean(sample: Sample | None) -> str:
    return escape.DASH if sample is None else amount(sample.mean)


def _published(row: Row) -> str:
    if row.published is None:
        return escape.DASH
    spread = "" if row.published.spread is None else f" {escape.PLUS_MINUS} {row.published.spread:.2f}"
    return f"{row.published.accuracy:.2f}{spread}"


def _difference(row: Row) -> str:
    return escape.DASH if row.paired is None else difference(row.paired.sample)


def _p(row: Row) -> str:
    return escape.DASH if row.paired is None else p_values(row.paired.p, row.corrected_p)


def _neurobench(metric: Metric) -> Column:
    """The column of one of NeuroBench's metrics, shown if it is asked for."""

    def text(row: Row) -> str:
        sample = row.neurobench.get(metric.name)
        return escape.DASH if sample is None else amount(metric.factor * sample.mean)

    return Column(metric.key, metric.head, text, inside=True, asked=True)


NAME = Column("name", "method", lambda row: row.group.name)

COLUMNS = (
    Column("n", "n", lambda row: str(row.final.n), once=True),
    Column("test", "test (%)", lambda row: spread_of(row.final, 100)),
    Column("interval", "95 % interval", lambda row: interval(row.final, 100)),
    Column("difference", "difference", _difference),
    Column("p", "p (Holm)", _p),
    Column("best", "best by val (%)", lambda row: spread_of(row.best, 100)),
    Column("firing", "firing (%)", lambda row: spread_of(row.firing_rate, 100), inside=True),
    Column("gradient", "gradient (%)", lambda row: spread_of(row.gradient, 100), inside=True),
    Column("layers", "over layers (%)", lambda row: spread_of(row.gradient_spread, 100), inside=True),
    Column("energy", "energy (nJ)", lambda row: _mean(row.energy), once=True, inside=True),
    Column(
        "parameters",
        "parameters",
        lambda row: escape.DASH if row.parameters is None else f"{row.parameters:,}",
        once=True,
        inside=True,
    ),
    Column("epoch", "s per epoch", lambda row: _mean(row.epoch_seconds), once=True, inside=True),
    Column("memory", "peak memory (MiB)", lambda row: _mean(row.memory), once=True, inside=True),
    Column("published", "published (%)", _published, once=True, inside=True),
    *map(_neurobench, METRICS),
)

KEYS = tuple(column.key for column in COLUMNS)


def chosen_columns(words: Sequence[str]) -> tuple[str, ...] | None:
    """The keys of `--columns a,b`, in the typed order; None if not typed. Raises ConfigError."""
    keys = [key for word in words for key in word.split(",") if key]
    for key in keys:
        if key not in KEYS:
            raise ConfigError(f"--columns: {unknown('column', key, KEYS)}")
    return tuple(dict.fromkeys(keys)) or None


def split_columns(
    comparison: Comparison, keys: Sequence[str] | None = None
) -> tuple[list[Column], list[tuple[str, str]]]:
    """The columns to show, and (heading, text) of those equal in all rows.

    keys: the chosen ones, which are shown even if they are equal. By default all that are neither empty, equal nor
    `asked`.
    """
    shown, equal = [], []
    for column in COLUMNS:
        if column.asked and column.key not in (keys or ()):
            continue
        texts = {column.text(row) for row in comparison.rows}
        if texts == {escape.DASH} or column.key in (keys or ()):
            continue
        if column.key == "best" and all(row.best == row.final for row in comparison.rows):
            equal.append(("best by val:", "the last epoch"))
        elif column.once and len(texts) == 1 and len(comparison.rows) > 1:
            equal.append((column.head, next(iter(texts))))
        else:
            shown.append(column)
    by_key = {column.key: column for column in COLUMNS}
    return shown if keys is None else [by_key[key] for key in keys], equal


def equal_line(equal: Sequence[tuple[str, str]]) -> str:
    """`Equal in all rows: n 3, parameters 98,029.`; empty if nothing is."""
    return f"Equal in all rows: {', '.join(f'{head} {text}' for head, text in equal)}." if equal else ""
