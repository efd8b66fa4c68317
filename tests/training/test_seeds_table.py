"""The table of a multirun: trials that differ only in the seed are averaged."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gradspike.runs.folder import Summary
from gradspike.statistics import describe
from gradspike.terminal.tables import print_trials


def summary(accuracy: float) -> Summary:
    values: dict[str, Any] = {"accuracy": accuracy, "epoch": 0}
    return cast("Summary", {"val": {"last": values}, "test": {"last": values, "best": values}})


def test_mean_spread_and_interval_of_trials_that_differ_in_the_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    accuracies = [0.90, 0.92, 0.95]
    trials: list[tuple[str, Summary | None]] = [
        (f"dataset=digits method=psg seed={seed}", summary(one)) for seed, one in enumerate(accuracies)
    ]
    trials += [("dataset=digits method=lsg seed=0", summary(0.5)), ("dataset=digits method=lsg seed=1", None)]
    print_trials(trials)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    _, _, means = said.partition("Over seeds")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in means.splitlines() if "method=" in line]
    sample = describe(accuracies)
    assert sample.sd is not None
    assert sample.low is not None
    assert sample.high is not None
    assert rows == [
        ["method=psg", "3", f"92.33 ± {100 * sample.sd:.2f} %", f"[{100 * sample.low:.2f}, {100 * sample.high:.2f}] %"],
        ["method=lsg", "1", "50.00 %", "-"],
    ]


def test_without_repeated_settings_there_is_no_mean(capsys: pytest.CaptureFixture[str]) -> None:
    print_trials([("method=psg", summary(0.9)), ("method=lsg", summary(0.8))])
    assert "Over seeds" not in capsys.readouterr().out
