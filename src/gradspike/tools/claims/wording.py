"""The words of a claim's numbers, the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gradspike.shown import counted
from gradspike.statistics import Sample
from gradspike.tools.claims.claim import Expected
from gradspike.tools.claims.summary import Summary
from gradspike.tools.claims.verdict import VERDICTS, Decided, Measured

MINUS = "\N{MINUS SIGN}"

HOW = (
    "A claim is a set of numbers, each with the range that the claim states. Intervals are 95 % intervals of the mean "
    "over seeds; where two methods are compared, of the differences seed by seed. **holds here**: every interval lies "
    "inside its range. **does not hold here**: at least one lies outside. **cannot be told**: neither. Exact numbers "
    "have no interval. Nothing is corrected for the number of claims. The verdicts are about these runs, which are far "
    "smaller than the papers'. They neither confirm nor refute a paper."
)


def number(value: float, unit: str, signed: bool = False) -> str:
    """A number with as many digits as its unit calls for, and a real minus sign."""
    if unit in ("%", "points"):
        text = f"{value:+.2f}" if signed else f"{value:.2f}"
    elif value == int(value) and abs(value) < 1e9:
        text = f"{value:+,.0f}" if signed else f"{value:,.0f}"
    else:
        text = f"{value:+.3g}" if signed else f"{value:.3g}"
    return text.replace("-", MINUS)


def value_text(one: Measured) -> str:
    """A part's number: `+1.20 points [0.40, 2.00], n = 5`."""
    if one.sample is None:
        return "not run"
    signed = one.part.minus is not None
    unit = f" {one.unit}" if one.unit and one.unit != "ratio" else ""
    return f"{number(one.sample.mean, one.unit, signed)}{unit}{_interval(one.sample, one.unit)}"


def _interval(sample: Sample, unit: str) -> str:
    if sample.n == 0:
        return ", exact"
    if sample.low is None or sample.high is None:
        return f", n = {sample.n}, no interval"
    return f" [{number(sample.low, unit)}, {number(sample.high, unit)}], n = {sample.n}"


def expected_text(expected: Expected) -> str:
    """The range that decides: `above 0`."""
    ends = (("above", expected.above), ("below", expected.below))
    return " and ".join(f"{word} {value:g}".replace("-", MINUS) for word, value in ends if value is not None)


def setting_text(summary: Summary) -> str:
    """Data, network and budget of a summary in a line."""
    s = summary.setting
    parts = [f"{s.get('dataset.name', '')}"]
    if s.get("dataset.image_size"):
        parts[0] += f" at {s['dataset.image_size']} px"
    if s.get("dataset.train_per_class"):
        parts.append(f"{s['dataset.train_per_class']} training samples a class")
    if s.get("test samples"):
        parts.append(f"{s['test samples']} test samples")
    if s.get("model.name"):
        width = f" x {s['model.width']}" if s.get("model.width") is not None else ""
        parts.append(f"{s['model.name']}{width}")
    if s.get("time_steps"):
        parts.append(f"T = {s['time_steps']}")
    if s.get("trainer.max_epochs"):
        parts.append(counted(int(str(s["trainer.max_epochs"])), "epoch"))
    if s.get("method.v_threshold"):
        parts.append(f"V_th = {s['method.v_threshold']} for all")
    return ", ".join(part for part in parts if part)


def runs_text(summary: Summary) -> str:
    """How many of the planned runs are there."""
    done = len(summary.runs)
    return counted(done, "run") if done == summary.planned else f"{done} of {counted(summary.planned, 'run')}"


def tally(decided: Sequence[Decided]) -> str:
    """How many claims have which verdict."""
    counts = Counter(one.verdict for one in decided)
    return ", ".join(f"{verdict}: {counts[verdict]}" for verdict in VERDICTS if counts[verdict])
