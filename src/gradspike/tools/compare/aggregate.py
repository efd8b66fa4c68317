"""Results over several data sets, as rliable aggregates them (Agarwal et al., NeurIPS 2021).

rliable itself draws in pandas, seaborn, arch and statsmodels; numpy and scipy suffice for its four quantities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradspike.statistics import LEVEL, SEED, student_quantile
from gradspike.tools.compare.baselines import METHOD, Factor, value_of
from gradspike.tools.compare.groups import Group, Grouping, text_of

DATA_SET = "dataset.name"
RESAMPLES = 5_000
PROFILE_POINTS = 60
FEWEST = 3
"""With two seeds a bootstrap has three different outcomes for a data set."""

Scores = NDArray[np.float64]
"""Test accuracies [seeds, data sets], as fractions."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None with fewer than three seeds, and if all resamples agree."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """One setting over all data sets."""

    name: str
    groups: tuple[Group, ...]
    """Its groups, one for each data set."""
    seeds: tuple[int, ...]
    """The seeds that it has on every data set."""
    iqm: Estimate
    """Interquartile mean of the accuracies over seeds and data sets."""
    improvement: Estimate | None
    """The probability that a run is better than one of the baseline on the same data set, mean over data sets."""
    profile: tuple[float, ...]
    """The share of runs above each accuracy of `Aggregate.accuracies`."""


@dataclass(frozen=True)
class Aggregate:
    """All settings that have runs on every data set."""

    data_sets: tuple[str, ...]
    lines: tuple[Line, ...]
    baseline: str | None
    accuracies: tuple[float, ...]
    """The horizontal axis of the profiles."""
    left_out: tuple[str, ...]
    """Settings without a shared seed on every data set."""


def aggregated(grouping: Grouping, baseline: Factor | None) -> Aggregate | None:
    """The results over data sets; None for one data set. `baseline`: that of the probabilities of improvement."""
    if DATA_SET not in grouping.swept:
        return None
    data_sets = tuple(dict.fromkeys(str(group.settings[DATA_SET]) for group in grouping.groups))
    found: dict[str, dict[str, Group]] = {}
    base = None
    own_keys = _own_keys(grouping)
    for group in grouping.groups:
        kept = {key: value for key, value in group.settings.items() if key in own_keys}
        shown = [f"{grouping.short[key]}={text_of(value)}" for key, value in kept.items()]
        name = ", ".join([group.label, *(one for one in shown if one in group.name)])
        found.setdefault(name, {})[str(group.settings[DATA_SET])] = group
        if baseline is not None and baseline.key == METHOD and value_of(group, METHOD) == baseline.value:
            base = name
    scores = {name: one for name, groups in found.items() if (one := _scores(groups, data_sets)) is not None}
    if not scores:
        return None
    every = np.concatenate([values.ravel() for _, values in scores.values()])
    accuracies = np.linspace(every.min(), every.max(), PROFILE_POINTS)
    lines = [
        Line(
            name=name,
            groups=tuple(found[name][one] for one in data_sets),
            seeds=seeds,
            iqm=interquartile_mean(values),
            improvement=probability_of_improvement(values, scores[base][1])
            if base is not None and base in scores and base != name
            else None,
            profile=tuple(float((values > at).mean()) for at in accuracies),
        )
        for name, (seeds, values) in scores.items()
    ]
    return Aggregate(
        data_sets=data_sets,
        lines=tuple(sorted(lines, key=lambda line: -line.iqm.value)),
        baseline=base if base in scores else None,
        accuracies=tuple(float(one) for one in accuracies),
        left_out=tuple(name for name in found if name not in scores),
    )


def interquartile_mean(scores: Scores) -> Estimate:
    """The mean of the middle half of all runs, with its interval."""
    return Estimate(_iqm(scores[None])[0], *_interval(_iqm(_resampled(scores, 0)), scores))


def probability_of_improvement(scores: Scores, baseline: Scores) -> Estimate:
    """P(a run is better than one of the baseline), half for equal ones: Mann and Whitney's U, mean over data sets."""
    value = _improvement(scores[None], baseline[None])[0]
    fewer = min(scores, baseline, key=len)
    low, high = _interval(_improvement(_resampled(scores, 0), _resampled(baseline, 1)), fewer)
    return Estimate(value, low, high)


def _own_keys(grouping: Grouping) -> list[str]:
    """The swept keys that vary beside the data set: those of which one data set has several values."""
    found = []
    for key in grouping.swept:
        values: dict[str, set[str | None]] = {}
        for group in grouping.groups:
            values.setdefault(f"{group.label} {group.settings[DATA_SET]}", set()).add(value_of(group, key))
        if any(len(one) > 1 for one in values.values()):
            found.append(key)
    return found


def _scores(groups: dict[str, Group], data_sets: Sequence[str]) -> tuple[tuple[int, ...], Scores] | None:
    """The shared seeds and the accuracies; None if a data set or a shared seed is missing."""
    if any(one not in groups for one in data_sets):
        return None
    by_set = [{run.seed: run.final("last") for run in groups[one].runs} for one in data_sets]
    seeds = tuple(sorted(set.intersection(*(set(one) for one in by_set))))
    if not seeds:
        return None
    return seeds, np.array([[one[seed] for one in by_set] for seed in seeds], dtype=np.float64)


def _iqm(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each of the stacked score matrices [R, seeds, data sets]."""
    from scipy.stats import trim_mean  # type: ignore[import-untyped,unused-ignore]

    return np.asarray(trim_mean(scores.reshape(len(scores), -1), 0.25, axis=1))


def _improvement(scores: NDArray[np.float64], baseline: NDArray[np.float64]) -> NDArray[np.float64]:
    differences = np.sign(scores[:, :, None, :] - baseline[:, None, :, :])
    return np.asarray((1 + differences.mean((1, 2, 3))) / 2)


def _resampled(scores: Scores, stream: int) -> NDArray[np.float64]:
    """Stratified bootstrap [R, seeds, data sets]: the seeds of each data set are drawn on their own."""
    n, sets = scores.shape
    drawn = np.random.default_rng([SEED, stream]).integers(0, n, (RESAMPLES, n, sets))
    return np.take_along_axis(scores[None], drawn, axis=1)


def _interval(resampled: NDArray[np.float64], scores: Scores) -> tuple[float | None, float | None]:
    """Percentiles, expanded for few seeds: those of Student's t instead of the normal distribution, and for the
    bootstrap's spread, which is too small by sqrt((n - 1) / n) (Hesterberg 2015, section 3.3)."""
    n = len(scores)
    if (
        n < FEWEST or resampled.min() == resampled.max()
    ):  # two seeds, or two methods that do not overlap, show no spread
        return None, None
    from scipy.special import ndtr  # type: ignore[import-untyped,unused-ignore]

    reach = math.sqrt(n / (n - 1)) * student_quantile(n - 1, (1 + LEVEL) / 2)
    low, high = np.quantile(resampled, [float(ndtr(-reach)), float(ndtr(reach))])
    return float(low), float(high)
