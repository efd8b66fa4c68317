"""Mean, interval, paired difference and p-value over few seeds. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
EXACT_RESAMPLES = 50_000  # up to 6 values every one of the n^n resamples is counted
RESAMPLES = 20_000
EXACT_FLIPS = 16  # up to this many pairs every one of the 2^n signs is counted
FLIPS = 100_000
SEED = 0
ALPHA = 0.05

Values = Sequence[float]


@dataclass(frozen=True)
class Sample:
    """What is known of a quantity from its values, one a seed."""

    n: int
    mean: float
    sd: float | None
    """Standard deviation of a sample (n - 1); None for a single value."""
    low: float | None
    high: float | None
    """Percentile bootstrap interval of the mean."""
    t_low: float | None
    t_high: float | None
    """Student's interval of the mean, which is the wider and the more honest one for a handful of values."""


@dataclass(frozen=True)
class Paired:
    """Differences to a baseline over the seeds that both have."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    sample: Sample
    p: float
    """Two-sided; of a permutation test that flips the signs of the differences."""
    smallest_p: float
    """What p cannot go below with so many seeds."""


def describe(values: Values) -> Sample:
    """Mean, standard deviation and both intervals. Raises ValueError for no value at all."""
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        raise ValueError("no values to describe")
    mean = float(x.mean())
    if len(x) == 1:
        return Sample(1, mean, None, None, None, None, None)
    sd = float(x.std(ddof=1))
    low, high = bootstrap_interval(x)
    margin = student_quantile(len(x) - 1, (1 + LEVEL) / 2) * sd / math.sqrt(len(x))
    return Sample(len(x), mean, sd, low, high, mean - margin, mean + margin)


def bootstrap_interval(values: Values | NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the mean (Efron 1979): over every resample where there are few, else over random ones,
    always the same for the same values.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    if n**n <= EXACT_RESAMPLES:
        chosen = np.stack(np.meshgrid(*[np.arange(n)] * n, indexing="ij")).reshape(n, -1)
        means = x[chosen].mean(0)
    else:
        chosen = np.random.default_rng(SEED).integers(0, n, size=(RESAMPLES, n))
        means = x[chosen].mean(1)
    # Means of few values are few: the interval ends at one of them, not between two.
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


def student_quantile(freedom: int, share: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit  # type: ignore[import-untyped,unused-ignore]

    return float(stdtrit(freedom, share))


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Paired | None:
    """Compare by seed; None where no seed is shared."""
    seeds = tuple(sorted(values.keys() & baseline.keys()))
    if not seeds:
        return None
    differences = tuple(values[seed] - baseline[seed] for seed in seeds)
    return Paired(seeds, differences, describe(differences), sign_flip_p(differences), smallest_p(len(seeds)))


def sign_flip_p(differences: Values) -> float:
    """Two-sided p-value of no difference: the share of sign patterns whose mean is as far from 0 as the one observed.

    If two methods do not differ, each seed's difference is as likely to have the other sign (Fisher 1935). All 2^n
    patterns are counted up to n = 16, else 100,000 random ones, with the observed one among them.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    observed = abs(d.sum())
    # Sums of the same numbers in another order may differ in their last digit.
    reach = observed - 1e-9 * max(np.abs(d).sum(), 1e-300)
    if n <= EXACT_FLIPS:
        patterns = np.arange(2**n)
        sums = np.zeros(2**n)
        for place, value in enumerate(d):
            sums += np.where(patterns >> place & 1, value, -value)
        return float((np.abs(sums) >= reach).mean())
    rng = np.random.default_rng(SEED)
    sums = sum((rng.integers(0, 2, FLIPS) * 2 - 1) * value for value in d)
    return float((1 + (np.abs(sums) >= reach).sum()) / (1 + FLIPS))


def smallest_p(n: int) -> float:
    """What the p-value of n pairs cannot go below: one pattern of signs and its mirror image, out of 2^n."""
    return min(1.0, 2 / 2**n) if n <= EXACT_FLIPS else 1 / (1 + FLIPS)


def holm(p_values: Values) -> list[float]:
    """p-values corrected for their number (Holm 1979), in their order."""
    count = len(p_values)
    corrected = [0.0] * count
    highest = 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def seeds_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """Fewest shared seeds with which one of so many comparisons can have a corrected p-value of at most `alpha`."""
    return next(n for n in range(1, 64) if comparisons * 2 / 2**n <= alpha)


def verdict(pairs: Sequence[Paired], comparisons: int) -> str:
    """In plain words, whether there are enough seeds for these tests to tell anything."""
    if not pairs:
        return "No comparison: no other group shares a seed with the baseline."
    fewest, most = (choose(len(pair.seeds) for pair in pairs) for choose in (min, max))
    seeds = f"{fewest} shared seed{'s' if fewest > 1 else ''}" if fewest == most else f"{fewest} to {most} shared seeds"
    floor = min(pair.smallest_p for pair in pairs)
    together = f", and with {comparisons} comparisons not below {min(1.0, floor * comparisons):.3g} corrected"
    limit = f"With {seeds} no p-value can be below {floor:.3g}{together if comparisons > 1 else ''}."
    if floor * comparisons <= ALPHA:
        return limit
    needed = seeds_needed(comparisons)
    return (
        f"{limit} That is too few seeds to tell a difference at the {ALPHA:.0%} level, however large it is: it takes "
        f"{needed} shared seeds. Read the intervals, not the p-values."
    )
