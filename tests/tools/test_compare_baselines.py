"""Baselines by any key, paired within all other settings, and differences of differences, against numbers by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gradspike.errors import ConfigError
from gradspike.tools.compare.baselines import find_baseline, interactions
from gradspike.tools.compare.groups import Grouping
from helpers.groups import grouping_of


def crossed() -> Grouping:
    """Two methods at two widths and two numbers of steps. A width of 1 adds 0.1, with lsg 0.1 + 0.02 * (seed + 1)."""
    found: dict[tuple[str, tuple[tuple[str, Any], ...]], dict[int, float]] = {}
    for label in ("fixed_sg", "lsg"):
        for width in (0.5, 1.0):
            for steps in (2, 4):
                gain = 0.1 * (width == 1)
                values = {s: 0.5 + gain + 0.02 * (s + 1) * (width == 1) * (label == "lsg") for s in range(3)}
                found[label, (("method.width", width), ("time_steps", steps))] = values
    return grouping_of(found)


def partners(grouping: Grouping, *words: str) -> dict[str, str]:
    base = find_baseline(grouping, words)
    assert base is not None
    return {name: other.name for name, other in base.of.items()}


def test_a_method_is_compared_at_equal_settings() -> None:
    assert (
        partners(crossed(), "method=fixed_sg")
        == partners(crossed())
        == {
            f"lsg, width={width}, T={steps}": f"fixed_sg, width={width}, T={steps}"
            for width in (0.5, 1)
            for steps in (2, 4)
        }
    )


@pytest.mark.parametrize("word", ["method.width=0.5", "width=0.5", "method.width=.50"])
def test_a_value_is_compared_within_all_other_settings(word: str) -> None:
    assert partners(crossed(), word) == {
        f"{label}, width=1, T={steps}": f"{label}, width=0.5, T={steps}"
        for label in ("fixed_sg", "lsg")
        for steps in (2, 4)
    }


def test_a_single_group_is_compared_with_all() -> None:
    assert set(partners(crossed(), "lsg, width=1, T=4").values()) == {"lsg, width=1, T=4"}
    assert len(partners(crossed(), "lsg, width=1, T=4")) == 7


def test_options_that_one_method_alone_varies_do_not_hinder() -> None:
    found = grouping_of(
        {
            ("fixed_sg", (("method.width", 1.0),)): {0: 0.5},
            ("lsg", (("method.width", 0.5),)): {0: 0.6},
            ("lsg", (("method.width", 2.0),)): {0: 0.7},
        }
    )
    assert set(partners(found, "fixed_sg").values()) == {"fixed_sg, width=1"}
    base = find_baseline(found, ["width=0.5"])
    assert base is not None
    assert base.unpaired == ("fixed_sg, width=1",)


def test_the_difference_of_differences_by_hand() -> None:
    grouping = crossed()
    base = find_baseline(grouping, ["width=0.5"])
    assert base is not None
    accuracies = {group.name: {run.seed: run.final("last") or 0.0 for run in group.runs} for group in grouping.groups}
    found = interactions(grouping, base, [], accuracies)
    by_method = {one.group.name: one for one in found if one.factor.key == "method"}
    assert set(by_method) == {"lsg, width=1, T=2", "lsg, width=1, T=4"}
    one = by_method["lsg, width=1, T=4"]
    assert one.reference.name == "fixed_sg, width=1, T=4"
    assert one.paired.differences == pytest.approx([0.02, 0.04, 0.06])
    assert one.paired.sample.mean == pytest.approx(0.04)
    by_steps = [one for one in found if one.factor.key == "time_steps"]
    assert {one.reference.name for one in by_steps} == {"fixed_sg, width=1, T=2", "lsg, width=1, T=2"}
    assert all(one.paired.sample.mean == pytest.approx(0) for one in by_steps)
    turned = interactions(grouping, base, ["method=lsg", "T=4"], accuracies)
    assert {one.reference.name for one in turned} == {
        "lsg, width=1, T=2",
        "lsg, width=1, T=4",
        "fixed_sg, width=1, T=4",
    }
    with pytest.raises(ConfigError, match=r"method\.width is named twice"):
        interactions(grouping, base, ["width=1"], accuracies)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lsgg", "Did you mean 'lsg'?"),
        ("method=lsgg", "Did you mean 'lsg'?"),
        ("method.widt=1", "unknown varying setting 'method.widt'. Did you mean 'method.width'?"),
        ("width=3", "Allowed: 0.5, 1"),
    ],
)
def test_an_unknown_baseline_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        find_baseline(crossed(), [word])
    assert said in str(refusal.value)


def test_a_baseline_without_partners_is_refused() -> None:
    apart = grouping_of({("lsg", (("time_steps", 2),)): {0: 0.5}, ("fixed_sg", (("time_steps", 4),)): {0: 0.5}})
    with pytest.raises(ConfigError, match="no group has a partner that differs in method only"):
        find_baseline(apart, ["fixed_sg"])
    base = find_baseline(apart, [])
    assert base is not None
    assert (base.of, base.unpaired) == ({}, ("lsg, T=2",))
