"""The sentences on the differences: which groups differ, what the seeds allow, and how many more would be needed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gradspike.config.settling import unsettled
from gradspike.statistics import Paired, differs, paired, simultaneous
from gradspike.tools.compare.verdict import p_limit, power_line, seeds_needed, seeds_to_show, t_test_power, verdict


def pair_of(*differences: float) -> Paired:
    pair = paired(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
    assert pair is not None
    return pair


def test_a_difference_within_the_noise_is_none() -> None:
    pairs = {"lsg": pair_of(0.01, -0.01, 0.002), "psg": pair_of(-0.06, -0.01, -0.02)}
    low, high = simultaneous(pairs["psg"], 2) or (0.0, 0.0)
    assert verdict(pairs, "fixed_sg", "method") == (
        f"With 3 shared seeds no method differs from fixed_sg; the largest difference is -3.00 points "
        f"[{100 * low:+.2f}, {100 * high:+.2f}]: psg (intervals of 95 % for all 2 together)."
    )


def test_differences_are_named_with_intervals_for_all_together() -> None:
    pairs = {"lsg": pair_of(0.01, -0.01, 0.002, 0.0), "psg": pair_of(-0.030, -0.031, -0.029, -0.030)}
    said = verdict(pairs, "fixed_sg", "method")
    assert said.startswith("With 4 shared seeds 1 of 2 methods differs from fixed_sg: psg by -3.00 points [")
    assert simultaneous(pairs["psg"], 2) == pytest.approx(
        stats.t.interval(0.975, 3, -0.03, stats.sem(pairs["psg"].differences))
    )
    assert verdict({"psg": pairs["psg"]}, "lsg").startswith("With 4 shared seeds psg differs from lsg by -3.00 points")


def test_one_difference_of_one_seed_and_none() -> None:
    assert verdict({"psg": pair_of(0.1)}, "lsg") == (
        "With 1 shared seed psg does not differ from lsg; the difference is +10.00 points (one seed: no interval)."
    )
    assert "shares a seed" in verdict({}, "lsg")


def test_equal_differences_have_no_spread_to_judge_by() -> None:
    """Accuracies on few samples repeat: three equal differences are no proof, ten are."""
    assert not differs(pair_of(*[0.01] * 3), 1)
    assert not differs(pair_of(0.9 - 0.8, 0.8 - 0.7, 0.7 - 0.6), 1), "equal but for their rounding"
    assert differs(pair_of(*[0.01] * 10), 1)
    assert not differs(pair_of(*[0.0] * 10), 1)
    said = verdict({"psg": pair_of(*[0.125] * 3)}, "lsg")
    assert said.endswith("the difference is +12.50 points on every seed (no spread to judge by).")


@pytest.mark.parametrize("comparisons", [1, 5])
def test_no_difference_is_seldom_taken_for_one(comparisons: int) -> None:
    rng = np.random.default_rng(comparisons)
    wrong = [any(differs(pair_of(*rng.normal(0, 1, 4)), comparisons) for _ in range(comparisons)) for _ in range(400)]
    assert 0.02 <= np.mean(wrong) <= 0.08


def test_the_limit_says_when_no_test_can_tell() -> None:
    said = p_limit([pair_of(0.1, 0.2, 0.3, 0.4, 0.5)]) or ""
    assert "no p-value can be below 0.0625" in said
    assert "too few seeds" in said
    assert "6 shared seeds" in said
    assert seeds_needed(13) == math.ceil(math.log2(13 * 2 / 0.05))
    assert "too few" not in (p_limit([pair_of(*[1.0] * 10)] * 2) or "")
    assert p_limit([]) is None


@pytest.mark.parametrize(("effect", "sd"), [(0.005, 0.004), (0.005, 0.01)])
def test_so_many_seeds_find_the_difference_in_80_percent(effect: float, sd: float) -> None:
    n = seeds_to_show(effect, sd)
    assert n is not None
    values = np.random.default_rng(0).normal(effect, sd, (4000, n))
    found = (stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(t_test_power(n, effect, sd), abs=0.02)
    assert t_test_power(n - 1, effect, sd) < 0.8 <= t_test_power(n, effect, sd)


def test_the_power_line_has_the_range_that_the_spread_allows() -> None:
    pairs = [pair_of(0.00, 0.01, 0.02), pair_of(0.00, 0.02, 0.04)]
    spread = math.sqrt((0.01**2 + 0.02**2) / 2)
    least, most = (seeds_to_show(0.005, spread * math.sqrt(4 / stats.chi2.ppf(share, 4))) for share in (0.975, 0.025))
    said = power_line(pairs) or ""
    assert f"vary by {100 * spread:.2f} points" in said
    assert f"{seeds_to_show(0.005, spread):,} shared seeds would show a difference of 0.5 points in 80 %" in said
    assert f"{least} to {most:,}," in said
    assert "more than 10,000" in (power_line([pair_of(0.0, 1.0)]) or "")
    assert power_line([pair_of(0.1), pair_of(0.2, 0.2)]) is None


def test_statistics_of_few_steps_are_unsettled() -> None:
    assert (unsettled(0.1, 12) or "").startswith("28 % of the norms' running statistics")
    assert unsettled(0.1, 29) is None
    assert unsettled(1.0, 1) is None
