"""Decides claims: the interval of each part against the range that the claim states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradspike.errors import ConfigError
from gradspike.statistics import Sample, describe
from gradspike.tools.claims.claim import Claim, Expected, Part, Settings
from gradspike.tools.claims.exact import EXACT
from gradspike.tools.claims.quantities import QUANTITIES, Quantity
from gradspike.tools.claims.summary import Record, Summary

HOLDS, DOES_NOT, UNKNOWN, NOT_RUN = "holds here", "does not hold here", "cannot be told", "not run"
VERDICTS = (HOLDS, DOES_NOT, UNKNOWN, NOT_RUN)


@dataclass(frozen=True)
class Measured:
    """One part's number."""

    part: Part
    unit: str
    sample: Sample | None
    """Over seeds; None if there are no runs. An exact number has n = 0 and no interval."""
    verdict: str | None
    """None for a part that does not decide."""
    reason: str = ""
    """Why there is no number."""


@dataclass(frozen=True)
class Decided:
    """A claim with its numbers and verdict."""

    claim: Claim
    verdict: str
    reason: str = ""
    measured: tuple[Measured, ...] = ()
    summaries: tuple[str, ...] = field(default=())
    """The names of the summaries behind its numbers."""


def decide(claim: Claim, summaries: Mapping[str, Summary]) -> Decided:
    """Compute and decide a claim. Raises ConfigError if a part does not fit its runs."""
    if claim.not_run is not None:
        return Decided(claim, NOT_RUN, claim.not_run)
    measured = tuple(_measure(claim, part, summaries) for part in claim.parts)
    verdicts = [one.verdict for one in measured if one.verdict is not None]
    names = dict.fromkeys(name for part in claim.parts for name in (part.summary, part.minus_summary) if name)
    reasons = dict.fromkeys(one.reason for one in measured if one.verdict == NOT_RUN)
    verdict = combined(verdicts, claim.needs == "any")
    used = tuple(name for name in names if name in summaries)
    return Decided(claim, verdict, " ".join(reasons) if verdict == NOT_RUN else "", measured, used)


def combined(verdicts: Sequence[str], any_suffices: bool = False) -> str:
    """One verdict from those of the parts, of which all are needed, or any suffices.

    Parts that were not run leave open what only they could decide.
    """
    if set(verdicts) == {NOT_RUN}:
        return NOT_RUN
    decisive, other = (HOLDS, DOES_NOT) if any_suffices else (DOES_NOT, HOLDS)
    if decisive in verdicts:
        return decisive
    return other if set(verdicts) == {other} else UNKNOWN


def judge(sample: Sample, expected: Expected) -> str:
    """Whether the interval lies inside the range, outside, or on both sides. Exact numbers have no interval."""
    low, high = (sample.low, sample.high) if sample.n else (sample.mean, sample.mean)
    if low is None or high is None:
        return UNKNOWN
    inside_above = expected.above is None or low > expected.above
    inside_below = expected.below is None or high < expected.below
    if inside_above and inside_below:
        return HOLDS
    outside = (expected.above is not None and high <= expected.above) or (
        expected.below is not None and low >= expected.below
    )
    return DOES_NOT if outside else UNKNOWN


def _measure(claim: Claim, part: Part, summaries: Mapping[str, Summary]) -> Measured:
    if part.exact is not None:
        function, unit = EXACT[part.exact]
        sample = Sample(0, function(), None, None, None)
        return Measured(part, unit, sample, judge(sample, part.expect) if part.expect else None)
    assert part.quantity is not None
    quantity = QUANTITIES[part.quantity]
    unit = "%" if part.relative else quantity.unit_of(part.minus is not None or part.spread_over is not None)
    try:
        values = values_of(part, quantity, summaries)
    except Missing as missing:
        return Measured(part, unit, None, NOT_RUN if part.expect else None, str(missing))
    except ConfigError as error:
        raise ConfigError(f"claim {claim.id}, {part.what}: {error}") from error
    sample = describe(list(values.values()))
    return Measured(part, unit, sample, judge(sample, part.expect) if part.expect else None)


class Missing(Exception):
    """There are no runs for a part."""


def values_of(part: Part, quantity: Quantity, summaries: Mapping[str, Summary]) -> dict[int, float]:
    """One value for each seed that has all runs of the part. Raises Missing, or ConfigError if they do not fit."""
    assert part.summary is not None
    first = _by_seed(part, part.summary, part.of, quantity, summaries)
    if part.minus is None:
        return first
    second = _by_seed(part, part.minus_summary or part.summary, part.minus, quantity, summaries)
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise Missing("no seed has both kinds of runs.")
    if part.relative:
        return {seed: 100 * (first[seed] / second[seed] - 1) for seed in shared}
    return {seed: first[seed] - second[seed] for seed in shared}


def _by_seed(
    part: Part, name: str, wanted: Settings, quantity: Quantity, summaries: Mapping[str, Summary]
) -> dict[int, float]:
    if name not in summaries:
        raise Missing(f"sweeps/claims/{name}.yaml was not run.")
    runs = [run for run in summaries[name].runs if _matches(run, wanted)]
    if not runs:
        known = sorted({str(run.parameters) for run in summaries[name].runs})
        if summaries[name].planned > len(summaries[name].runs):
            raise Missing(f"sweeps/claims/{name}.yaml is not finished.")
        raise ConfigError(f"no run of '{name}' has {wanted}. The runs have {'; '.join(known)}")
    grouped: dict[int, dict[Any, float]] = defaultdict(dict)
    for run in runs:
        key = run.parameters.get(part.spread_over) if part.spread_over else None
        if key in grouped[run.seed]:
            raise ConfigError(f"several runs of '{name}' with seed {run.seed} have {wanted}. Add a setting.")
        grouped[run.seed][key] = quantity.of(run)
    if part.spread_over is None:
        return {seed: found[None] for seed, found in grouped.items()}
    most = max(len(found) for found in grouped.values())
    if most == 1:
        raise Missing(f"no seed has several values of {part.spread_over}.")
    return {seed: max(found.values()) - min(found.values()) for seed, found in grouped.items() if len(found) == most}


def _matches(run: Record, wanted: Settings) -> bool:
    return all(run.parameters.get(key) == value for key, value in wanted.items())
