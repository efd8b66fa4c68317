"""The table of backbones in docs/results.md, computed again from stored numbers and from the recipes."""

from __future__ import annotations

import pytest
import yaml

from gradspike.tools.claims.summary import Record, Summary, read_summary
from helpers.command import ROOT

STORED = ROOT / "docs" / "results" / "backbones"
SUMMARIES = [read_summary(path) for path in sorted(STORED.glob("*.json"))]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Backbones")[1].split("\n##")[0]  # without the subsection on deep networks
REFERENCE = "resnet19"
DASH = "\N{EN DASH}"


SWEPT = {  # all networks that were planned
    str(name).removeprefix("small_")
    for path in (ROOT / "sweeps" / "backbones").glob("*.yaml")
    for name in yaml.safe_load(path.read_text(encoding="utf-8"))["parameters"]["model"]["values"]
}


def name_of(run: Record) -> str:
    return str(run.parameters["model"]).removeprefix("small_")


def row(summary: Summary, run: Record, reference: float) -> list[str]:
    """The cells of a run, as the table has them."""
    values, size = run.values, summary.setting["dataset.image_size"]
    deviation = 100 * (values["parameters"] / reference - 1)
    return [
        f"`{name_of(run)}`",
        f"{size} x {size}",
        str(summary.setting["optimizer.name"]),
        f"{values['parameters']:,.0f} ({deviation:+.1f} %)" if deviation else f"{values['parameters']:,.0f}",
        f"{100 * values['accuracy']:.2f}",
        f"{100 * values['test_firing_rate']:.1f}",
        published(name_of(run)),
    ]


def published(network: str) -> str:
    """The accuracy of the network's recipe for CIFAR-10, at T = 4; of ResNet-19 there is one for each method."""
    file = ROOT / "conf" / "recipe" / f"fixed_sg_cifar10_{network}.yaml"
    if network == REFERENCE or not file.is_file():
        return DASH
    (found,) = (
        one["accuracy"]
        for one in yaml.safe_load(file.read_text(encoding="utf-8"))["recipe"]["published"]
        if one["when"] == {"time_steps": 4}
    )
    return str(found)


def test_the_table() -> None:
    (reference,) = {
        run.values["parameters"] for one in SUMMARIES for run in one.runs if name_of(run) == REFERENCE
    }  # the same network at both sizes of the image
    expected = [row(summary, run, reference) for summary in SUMMARIES for run in summary.runs]
    lines = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| `")]
    assert sorted(lines) == sorted(expected)
    assert [float(line[4]) for line in lines] == sorted((float(line[4]) for line in lines), reverse=True)


def test_the_networks_that_were_not_run_are_named() -> None:
    (sentence,) = (one for one in " ".join(SECTION.split()).split(". ") if "not run" in one)
    named = {name for name in SWEPT if f"`{name}`" in sentence}
    assert named == SWEPT - {name_of(run) for summary in SUMMARIES for run in summary.runs}


def test_all_networks_had_the_same_data_and_epochs() -> None:
    for key in ("dataset.train_per_class", "dataset.batch_size", "trainer.max_epochs", "time_steps", "test samples"):
        assert len({summary.setting[key] for summary in SUMMARIES}) == 1, key
    for summary in SUMMARIES:
        assert {run.seed for run in summary.runs} == {0}
        assert all(run.values["parameters"] == pytest.approx(200_292, rel=0.05) for run in summary.runs)
        assert summary.made_with["code"] == SUMMARIES[0].made_with["code"]
