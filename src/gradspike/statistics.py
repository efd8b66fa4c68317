"""Mean, interval, paired difference and p-value over few seeds. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
FEWEST_RESAMPLED = 50  # at 20, an interval of the BCa bootstrap holds in 90 to 93 % of all cases only
INTERVALS = f"Student's; BCa bootstrap from {FEWEST_RESAMPLED} seeds"
"""How the intervals are computed, for captions."""
RESAMPLES = 20_000
EXACT_FLIPS = 16  # up to this number of pairs, all 2^n sign patterns are counted
FLIPS = 100_000
SEED = 0
ALPHA = 0.05
ROUNDING = 1e-7  # less than one sample of any test split, more than the rounding of a difference of float32 accuracies

Values = Sequence[float]


@dataclass(frozen=True)
class Sample:
    """Statistics of a quantity with one value per seed."""

    n: int
    mean: float
    sd: float | None
    """Sample standard deviation (n - 1); None for a single value."""
    low: float | None
    high: float | None
    """95 % interval of the mean; None for a single value."""


@dataclass(frozen=True)
class Paired:
    """Differences to a baseline over shared seeds."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    sample: Sample
    p: float
    """The two-sided p-value of a permutation test that flips the signs of the differences."""
    smallest_p: float
    """The smallest possible p-value for this number of seeds."""


def describe(values: Values) -> Sample:
    """Mean, standard deviation and interval. Raises ValueError without values."""
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        raise ValueError("no values to describe")
    mean = float(x.mean())
    if len(x) == 1:
        return Sample(1, mean, None, None, None)
    return Sample(len(x), mean, float(x.std(ddof=1)), *interval_of_mean(x))


def interval_of_mean(values: Values | NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """An interval that holds the true mean in `level` of all repetitions, of two values or more.

    Student's interval below 50 values; from 50 on the bias-corrected and accelerated bootstrap (Efron 1987), which does
    without a normal distribution but is too narrow for few values. The same values always give the same interval.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n, mean = len(x), float(x.mean())
    if n >= FEWEST_RESAMPLED and x[0] < x[-1]:
        from scipy.stats import bootstrap  # type: ignore[import-untyped,unused-ignore]

        resampled = bootstrap(
            (x,), np.mean, confidence_level=level, n_resamples=RESAMPLES, rng=np.random.default_rng(SEED)
        )
        return float(resampled.confidence_interval.low), float(resampled.confidence_interval.high)
    margin = student_quantile(n - 1, (1 + level) / 2) * float(x.std(ddof=1)) / math.sqrt(n)
    return mean - margin, mean + margin


def interval_of_share(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) of a share, such as an accuracy, of which `hits` of `n` samples are counted.

    It stays within 0 to 1 and has a width also at 0 and 1. Raises ValueError without samples.
    """
    if n < 1:
        raise ValueError("no samples to describe")
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, weight = hits / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    margin = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, centre - margin), min(1.0, centre + margin)


def student_quantile(freedom: int, share: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit  # type: ignore[import-untyped,unused-ignore]

    return float(stdtrit(freedom, share))


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Paired | None:
    """Compare by seed. None without shared seeds."""
    seeds = tuple(sorted(values.keys() & baseline.keys()))
    if not seeds:
        return None
    differences = tuple(values[seed] - baseline[seed] for seed in seeds)
    return Paired(seeds, differences, describe(differences), sign_flip_p(differences), smallest_p(len(seeds)))


def sign_flip_p(differences: Values) -> float:
    """Two-sided p-value of no difference: the share of sign patterns whose mean is at least as far from 0 as observed.

    If two methods do not differ, the difference of each seed is equally likely to have either sign (Fisher 1935). Up
    to n = 16 all 2^n patterns are counted, else 100,000 random ones and the observed one. Differences are fractions.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    observed = abs(d.sum())
    # Equal sums may differ by the rounding of their terms, which are differences of float32 accuracies.
    reach = observed - ROUNDING * n
    if n <= EXACT_FLIPS:
        patterns = np.arange(2**n)
        sums = np.zeros(2**n)
        for place, value in enumerate(d):
            sums += np.where(patterns >> place & 1, value, -value)
        return float((np.abs(sums) >= reach).mean())
    rng = np.random.default_rng(SEED)
    sums = sum((rng.integers(0, 2, FLIPS) * 2 - 1) * value for value in d)
    return float((1 + (np.abs(sums) >= reach).sum()) / (1 + FLIPS))


def differs(pair: Paired, comparisons: int) -> bool:
    """Whether a difference is told apart from 0: its interval for that many comparisons together (Bonferroni) excludes
    0. Equal differences, as accuracies on few samples may give, have no spread to judge by; then the p-value decides.
    """
    interval = simultaneous(pair, comparisons)
    if interval is None or interval[0] <= 0 <= interval[1]:
        return False
    return has_spread(pair) or pair.p * comparisons <= ALPHA


def has_spread(pair: Paired) -> bool:
    """Whether the differences vary over seeds by more than their rounding."""
    return (pair.sample.sd or 0.0) > ROUNDING * max(1.0, abs(pair.sample.mean))


def simultaneous(pair: Paired, comparisons: int) -> tuple[float, float] | None:
    """The interval of a difference that holds for `comparisons` of them together in 95 % of all cases; None for one
    seed."""
    if len(pair.seeds) < 2:
        return None
    return interval_of_mean(pair.differences, 1 - (1 - LEVEL) / max(1, comparisons))


def smallest_p(n: int) -> float:
    """The smallest p-value of n pairs: one sign pattern and its mirror image, out of 2^n."""
    return min(1.0, 2 / 2**n) if n <= EXACT_FLIPS else 1 / (1 + FLIPS)


def holm(p_values: Values) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the same order."""
    count = len(p_values)
    corrected = [0.0] * count
    highest = 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
