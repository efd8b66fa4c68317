"""Results over several data sets: against rliable's numbers, and the coverage of the intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gradspike.tools.compare import aggregate
from gradspike.tools.compare.aggregate import aggregated, interquartile_mean, probability_of_improvement
from gradspike.tools.compare.baselines import Factor
from helpers.groups import grouping_of

ONE = np.array(
    [[0.91, 0.62, 0.80, 0.95], [0.93, 0.60, 0.82, 0.94], [0.90, 0.65, 0.79, 0.96], [0.92, 0.63, 0.84, 0.95],
     [0.94, 0.61, 0.80, 0.97]]
)  # fmt: skip
OTHER = np.array(
    [[0.90, 0.61, 0.83, 0.95], [0.92, 0.59, 0.81, 0.93], [0.91, 0.66, 0.78, 0.96], [0.89, 0.60, 0.82, 0.94],
     [0.93, 0.62, 0.77, 0.95]]
)  # fmt: skip


def test_the_numbers_are_those_of_rliable() -> None:
    """Of rliable 1.2.0's aggregate_iqm and probability_of_improvement on these arrays."""
    assert interquartile_mean(ONE).value == pytest.approx(0.865)
    assert interquartile_mean(OTHER).value == pytest.approx(0.856)
    assert probability_of_improvement(ONE, OTHER).value == pytest.approx(0.64)


@pytest.mark.parametrize("n", [3, 10])
def test_intervals_hold_even_for_few_seeds(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Percentiles as they are would hold in 82 to 86 % of the cases at n = 3."""
    monkeypatch.setattr(aggregate, "RESAMPLES", 2000)
    means, rng = [0.5, 0.6, 0.7, 0.8, 0.95], np.random.default_rng(n)
    scores = rng.normal(means, 0.01, (250, n, 5))
    true = stats.trim_mean(rng.normal(means, 0.01, (9000, n, 5)).reshape(9000, -1), 0.25, axis=1).mean()
    intervals = [interquartile_mean(one) for one in scores]
    assert 0.91 <= np.mean([(one.low or 0) <= true <= (one.high or 0) for one in intervals]) <= 0.995


def test_two_seeds_and_methods_that_do_not_overlap_have_no_interval() -> None:
    assert interquartile_mean(ONE[:2]).low is None
    assert interquartile_mean(ONE[:3]).low is not None
    apart = probability_of_improvement(ONE + 1, OTHER)
    assert (apart.value, apart.low, apart.high) == (1, None, None)
    assert probability_of_improvement(ONE, OTHER[:1]).low is None


def test_groups_of_all_data_sets_are_put_together() -> None:
    scores = {"lsg": (0.9, 0.7), "fixed_sg": (0.8, 0.6), "psg": (0.95, None)}
    accuracies = {
        (label, (("dataset.name", data),)): {seed: value + seed / 100 for seed in range(4)}
        for label, values in scores.items()
        for data, value in zip(("digits", "cifar10"), values, strict=True)
        if value is not None
    }
    found = aggregated(grouping_of(accuracies), Factor("method", "fixed_sg"))
    assert found is not None
    assert found.data_sets == ("digits", "cifar10")
    assert [line.name for line in found.lines] == ["lsg", "fixed_sg"]
    assert found.left_out == ("psg",)
    best, base = found.lines
    assert best.improvement is not None
    assert base.improvement is None
    assert best.improvement.value == 1.0
    assert best.iqm.value == pytest.approx(0.815)
    assert (best.profile[0], best.profile[-1]) == (1.0, 0.0)
    assert aggregated(grouping_of({("lsg", (("time_steps", 2),)): {0: 0.5}}), None) is None
