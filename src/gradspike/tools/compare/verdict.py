"""What the differences to the baseline show, in sentences: the verdict, the limit of the p-values, and the power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gradspike.shown import counted
from gradspike.statistics import ALPHA, LEVEL, Paired, differs, has_spread, simultaneous

EFFECT = 0.005
"""The difference for which the necessary number of seeds is reported: half a percentage point."""
POWER = 0.8
MOST_SEEDS = 10_000
MOST_NAMED = 3


def verdict(pairs: Mapping[str, Paired], baseline: str, noun: str = "group") -> str:
    """Which groups differ from the baseline, by intervals that hold for all comparisons together.

    pairs: by the name of the group. noun: what a group is, such as `method`.
    """
    if not pairs:
        return f"No comparison: no other {noun} shares a seed with {baseline}."
    ordered = dict(sorted(pairs.items(), key=lambda one: -abs(one[1].sample.mean)))
    count = len(ordered)
    found = [name for name, pair in ordered.items() if differs(pair, count)]
    with_seeds = f"With {_seeds(list(pairs.values()))}"
    together = f" (intervals of {100 * LEVEL:.0f} % for all {count} together)" if count > 1 else ""
    largest, pair = next(iter(ordered.items()))
    size = f"{_points(pair.sample.mean)} points{_interval(pair, count)}"
    if not found and count == 1:
        return f"{with_seeds} {largest} does not differ from {baseline}; the difference is {size}."
    if not found:
        return f"{with_seeds} no {noun} differs from {baseline}; the largest difference is {size}: {largest}{together}."
    named = [
        f"{name} by {_points(ordered[name].sample.mean)} points{_interval(ordered[name], count)}" for name in found
    ]
    if count == 1:
        return f"{with_seeds} {largest} differs from {baseline} by {size}."
    more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    differ = "differs" if len(found) == 1 else "differ"
    return (
        f"{with_seeds} {len(found)} of {counted(count, noun)} {differ} from {baseline}: "
        f"{', '.join(named[:MOST_NAMED])}{more}{together}."
    )


def p_limit(pairs: Sequence[Paired]) -> str | None:
    """A message on the smallest p-value that these numbers of seeds allow; None without comparisons."""
    if not pairs:
        return None
    comparisons = len(pairs)
    floor = min(pair.smallest_p for pair in pairs)
    together = f", and with {comparisons} comparisons no corrected one below {min(1.0, floor * comparisons):.3g}"
    limit = f"With {_seeds(pairs)} no p-value can be below {floor:.3g}{together if comparisons > 1 else ''}."
    if floor * comparisons <= ALPHA:
        return limit
    needed = seeds_needed(comparisons)
    return (
        f"{limit} These are too few seeds for a significant p-value at the {100 * ALPHA:.0f} % level, however large "
        f"the difference: {needed} shared seeds are needed. Read the intervals, not the p-values."
    )


def power_line(pairs: Sequence[Paired], effect: float = EFFECT) -> str | None:
    """How many shared seeds would show a difference of `effect`, from the spread of all differences over seeds.

    The range of the number follows from the 95 % interval of the spread. None without any spread.
    """
    freedom = sum(len(pair.seeds) - 1 for pair in pairs)
    squares = sum((len(pair.seeds) - 1) * (pair.sample.sd or 0.0) ** 2 for pair in pairs)
    if not freedom or not squares:
        return None
    from scipy.special import chdtri  # type: ignore[import-untyped,unused-ignore]

    spread = math.sqrt(squares / freedom)
    tail = (1 - LEVEL) / 2
    low, high = (math.sqrt(squares / float(chdtri(freedom, share))) for share in (tail, 1 - tail))
    seeds = [seeds_to_show(effect, sd) for sd in (spread, low, high)]
    needed, least, most = (f"{n:,}" if n is not None else f"more than {MOST_SEEDS:,}" for n in seeds)
    return (
        f"Differences vary by {100 * spread:.2f} points over seeds (standard deviation). At that spread, {needed} "
        f"shared seeds would show a difference of {100 * effect:g} points in {100 * POWER:.0f} % of all cases (paired "
        f"t-test at {100 * ALPHA:.0f} %); {least} to {most}, because the spread is itself an estimate."
    )


def seeds_to_show(effect: float, sd: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """The smallest number of pairs with which a paired t-test finds a difference `effect` with probability `power`.

    sd: standard deviation of the differences. None above MOST_SEEDS.
    """
    low, high = 1, MOST_SEEDS  # too few, enough
    if t_test_power(high, effect, sd, alpha) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if t_test_power(middle, effect, sd, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def t_test_power(n: int, effect: float, sd: float, alpha: float = ALPHA) -> float:
    """The probability that a two-sided paired t-test with n pairs finds a mean difference `effect`."""
    from scipy.special import nctdtr, stdtrit  # type: ignore[import-untyped,unused-ignore]

    away = abs(effect) / sd * math.sqrt(n)
    critical = float(stdtrit(n - 1, 1 - alpha / 2))
    return float(1 - nctdtr(n - 1, away, critical) + nctdtr(n - 1, away, -critical))


def seeds_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """The smallest number of shared seeds that allows a corrected p-value of at most `alpha`."""
    return next(n for n in range(1, 64) if comparisons * 2 / 2**n <= alpha)


def _seeds(pairs: Sequence[Paired]) -> str:
    fewest, most = (choose(len(pair.seeds) for pair in pairs) for choose in (min, max))
    return counted(fewest, "shared seed") if fewest == most else f"{fewest} to {most} shared seeds"


def _points(value: float) -> str:
    return f"{100 * value:+.2f}"


def _interval(pair: Paired, comparisons: int) -> str:
    interval = simultaneous(pair, comparisons)
    if interval is None:
        return " (one seed: no interval)"
    if not has_spread(pair) and pair.sample.mean:
        return " on every seed (no spread to judge by)"
    return f" [{_points(interval[0])}, {_points(interval[1])}]"
