"""Times without compilation, runs too short to test, why energies are equal, and the title from a sweep's question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gradspike.tools.compare import series
from gradspike.tools.compare.energy_reason import energy_reason
from gradspike.tools.compare.groups import Group, Grouping
from gradspike.tools.compare.report import compare
from gradspike.tools.compare.run import Run
from gradspike.tools.compare.settled import unsettled
from gradspike.tools.compare.sweeps import question
from helpers.groups import grouping_of


def timed(*seconds: float) -> Run:
    (run,) = grouping_of({("lsg", ()): {0: 0.9}}).groups[0].runs
    lines = tuple({"epoch": epoch, "train_seconds": spent} for epoch, spent in enumerate(seconds))
    return replace(run, timing=lines, epochs=tuple({"epoch": epoch} for epoch in range(len(seconds))))


def test_the_time_of_an_epoch_is_without_compilation() -> None:
    assert series.epoch_seconds(timed(60.0, 2.0, 2.2, 9.0)) == 2.2
    assert series.epoch_seconds(timed(60.0)) == 60
    assert series.epoch_seconds(timed()) is None
    assert series.seconds(timed(60.0, 2.0)) == 62


def test_the_clock_adds_up_and_is_the_mean_over_seeds() -> None:
    group = Group("lsg", "lsg", {}, (timed(3.0, 1.0), timed(5.0, 1.0)))
    assert series.clock(group) == {1: 4.0, 2: 5.0}
    untimed = replace(timed(3.0, 1.0), timing=())
    assert series.clock(Group("lsg", "lsg", {}, (timed(3.0, 1.0), untimed))) is None


def test_a_run_of_twelve_steps_is_too_short_to_test() -> None:
    short = timed(1.0)
    short = replace(short, summary={**short.summary, "steps": 12}, config={**short.config, "norm": {"momentum": 0.1}})
    (note,) = unsettled([short, timed(1.0)])
    assert note.startswith("Too short to test: 28 % of the norms' running statistics")
    assert short.path in note
    assert unsettled([replace(short, summary={**short.summary, "steps": 100})]) == []


def spiking(layers: list[dict[str, Any]], rate: float, label: str) -> Group:
    (group,) = grouping_of({(label, ()): {0: 0.9}}).groups
    (run,) = group.runs
    test = {"last": {**run.summary["test"]["last"], "firing_rate": rate}}
    return replace(group, runs=(replace(run, summary={**run.summary, "test": test}, layers={"last": layers}),))


def layer(kind: str, nonzero: float, name: str = "convs.1") -> dict[str, Any]:
    sizes = {"macs": 1000, "steps": 2, "nonzero": [nonzero] * 2, "magnitude": [nonzero] * 2}
    return {"name": name, "kind": "Conv2d", "input": kind, **sizes}


@pytest.mark.parametrize(("kind", "explained"), [("real", True), ("whole", False)])
def test_equal_energy_is_explained(kind: str, explained: bool) -> None:
    groups = tuple(spiking([layer(kind, rate)], rate, label) for label, rate in (("lsg", 0.1), ("psg", 0.3)))
    reason = energy_reason(compare(Grouping(groups, (), {}, (), ()), [], ()))
    assert (reason is not None) == explained
    if reason is not None:
        assert "100 % of it is spent in layers whose inputs are real numbers (convs.1)" in reason


@pytest.mark.parametrize(("other", "explained"), [(0.2, True), (0.21, False)])
def test_equal_energy_on_event_data_is_explained(other: float, explained: bool) -> None:
    """The first layer accumulates the events, which are the same for all networks."""
    layers = [[layer("whole", seen, "convs.0"), layer("real", rate)] for rate, seen in ((0.1, 0.2), (0.3, other))]
    groups = (spiking(layers[0], 0.1, "lsg"), spiking(layers[1], 0.3, "psg"))
    reason = energy_reason(compare(Grouping(groups, (), {}, (), ()), [], ()))
    assert (reason is not None) == explained
    if reason is not None:
        assert "96 % of it is spent in layers whose inputs are real numbers (convs.1)" in reason
        assert "and 4 % in convs.0, which has the same inputs in all networks" in reason


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Which is best, at the\n# same budget?\n#\n# Six.\nprogram: x\n", "Which is best, at the same budget?"),
        ("# A comment.\ndescription: Does width matter?\n", "Does width matter?"),
        ("program: x\n", None),
        ("{", None),
    ],
)  # fmt: skip
def test_the_title_is_the_question_of_the_sweep(tmp_path: Path, text: str, title: str | None) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    assert question(tmp_path) == title
    assert question(tmp_path / "none") is None
