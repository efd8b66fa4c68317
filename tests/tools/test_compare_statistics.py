"""Intervals, paired tests and their correction: against scipy, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gradspike import statistics as ours

VALUES = [0.946, 0.951, 0.938, 0.944, 0.957]
OTHERS = [0.940, 0.949, 0.941, 0.935, 0.950]


def test_mean_deviation_and_students_interval_are_those_of_scipy() -> None:
    sample = ours.describe(VALUES)
    expected = stats.t.interval(0.95, 4, np.mean(VALUES), stats.sem(VALUES))
    assert (sample.n, sample.mean) == (5, pytest.approx(np.mean(VALUES)))
    assert sample.sd == pytest.approx(np.std(VALUES, ddof=1))
    assert (sample.low, sample.high) == pytest.approx(expected)


def test_many_values_have_the_bootstrap_interval_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(0.02, 60)
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=50_000, rng=np.random.default_rng(1))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.interval_of_mean(values) == pytest.approx(tuple(theirs.confidence_interval), abs=0.05 * width)
    assert ours.interval_of_mean(values) == ours.interval_of_mean(values[::-1])
    assert ours.interval_of_mean([0.5] * 60) == (0.5, 0.5)


@pytest.mark.parametrize(("n", "repetitions"), [(3, 4000), (5, 4000), (8, 4000), (20, 4000), (60, 300)])
def test_intervals_hold_as_often_as_they_say(n: int, repetitions: int) -> None:
    """Of the means of n seeds; the percentile bootstrap would hold in 75 % of the cases at n = 3."""
    values = np.random.default_rng(n).normal(90, 1.5, (repetitions, n))
    intervals = [ours.interval_of_mean(one) for one in values]
    assert 0.93 <= np.mean([low <= 90 <= high for low, high in intervals]) <= 0.97


def test_a_single_value_has_no_spread() -> None:
    sample = ours.describe([0.5])
    assert (sample.mean, sample.sd, sample.low, sample.high) == (0.5, None, None, None)
    with pytest.raises(ValueError, match="no values"):
        ours.describe([])


@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_permutation_test_is_that_of_scipy(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert ours.sign_flip_p(differences) == pytest.approx(theirs.pvalue)


def test_five_seeds_cannot_go_below_a_sixteenth() -> None:
    assert ours.sign_flip_p([1, 2, 3, 4, 5]) == 0.0625 == ours.smallest_p(5)
    assert ours.sign_flip_p([0, 0, 0]) == 1
    # 3 of 3 in one direction, but the smallest could have been the other way: 2 of 8 are as far, 2 more are not.
    assert ours.sign_flip_p([0.1, 0.2, 0.3]) == 0.25
    # In floating point 0.1 + 0.2 - 0.3 is not 0; every pattern is as far from 0 as the observed sum.
    assert ours.sign_flip_p([0.1, 0.2, -0.3]) == 1


def test_single_precision_breaks_no_ties() -> None:
    right, others = (717, 667, 697, 696, 713), (692, 682, 682, 698, 650)  # of 2,000 samples
    ones, base = (dict(enumerate(float(np.float32(k / 2000)) for k in counts)) for counts in (right, others))
    pair = ours.paired(ones, base)
    assert pair is not None
    exact = [a - b for a, b in zip(right, others, strict=True)]
    assert pair.p == ours.sign_flip_p(exact) == 0.375
    same = ours.paired(ones, dict(enumerate(float(np.float32((k - 21) / 2000)) for k in right)))
    assert same is not None
    assert same.sample.sd
    assert not ours.has_spread(same)


def test_many_pairs_are_sampled_and_never_give_zero() -> None:
    p = ours.sign_flip_p([1.0] * 30)
    assert 0 < p == 1 / (1 + ours.FLIPS)
    assert p == ours.smallest_p(30)
    assert ours.sign_flip_p([1.0, -1.0] * 15) == 1.0


def test_holm_by_hand() -> None:
    assert ours.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ours.holm([0.6, 0.7]) == [1.0, 1.0]
    assert ours.holm([]) == []


def test_pairs_use_the_seeds_that_both_have() -> None:
    pair = ours.paired(dict(enumerate(VALUES)), {1: OTHERS[1], 3: OTHERS[3], 9: 0.1})
    assert pair is not None
    assert pair.seeds == (1, 3)
    assert pair.differences == pytest.approx((0.002, 0.009))
    assert pair.sample.mean == pytest.approx(0.0055)
    assert pair.p == 0.5
    assert ours.paired({0: 1.0}, {1: 1.0}) is None
