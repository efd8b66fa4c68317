"""Every interval of docs/results.md and of the README's first table holds: computed again from stored numbers."""

from __future__ import annotations

import math
import re
from statistics import fmean

import pytest

from gradspike.statistics import Paired, holm, paired, simultaneous, student_quantile
from gradspike.tools.claims.summary import read_summary
from gradspike.tools.compare.verdict import power_line, verdict
from helpers.command import ROOT

RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BASELINE = "fixed_sg"


@pytest.fixture(scope="module")
def accuracies() -> dict[str, dict[int, float]]:
    """The stored test accuracies of the ten networks, by network and seed."""
    found: dict[str, dict[int, float]] = {}
    for name in ("main", "relu_twin"):
        for run in read_summary(ROOT / "docs" / "results" / "claims" / f"{name}.json").runs:
            network = str(run.parameters.get("method", "relu"))
            found.setdefault(network, {})[run.seed] = run.values["accuracy"]
    return found


@pytest.fixture(scope="module")
def pairs(accuracies: dict[str, dict[int, float]]) -> dict[str, Paired]:
    found = {name: paired(values, accuracies[BASELINE]) for name, values in accuracies.items() if name != BASELINE}
    return {name: pair for name, pair in found.items() if pair is not None}


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The cells of the table below `heading`, by the name in the first column."""
    section = text.split(heading)[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|") and set(line) - set("|-: ")]
    found = [line.strip("| ").split(" | ") for line in lines]
    return {cells[0].strip("`"): cells[1:] for cells in found[1:]}


def test_the_ten_networks(accuracies: dict[str, dict[int, float]], pairs: dict[str, Paired]) -> None:
    table = rows(RESULTS, "## Ten networks")
    short = rows(README, "## Do the methods differ?")
    assert table.keys() == accuracies.keys()
    assert short.keys() - {"ReLU twin"} <= accuracies.keys()
    corrected = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True))
    for name, values in accuracies.items():
        sd = math.sqrt(sum((v - fmean(values.values())) ** 2 for v in values.values()) / (len(values) - 1))
        mean = f"{100 * fmean(values.values()):.2f} ± {100 * sd:.2f}"
        difference = p = "\N{EN DASH}"
        if name in pairs:
            one = pairs[name].sample
            assert one.low is not None
            assert one.high is not None
            difference = f"{100 * one.mean:+.2f} [{100 * one.low:+.2f}, {100 * one.high:+.2f}]"
            p = f"{pairs[name].p:.3g} ({corrected[name]:.3g})"
        assert table[name][:4] == [str(len(values)), mean, difference, p]
        in_readme = short.get("ReLU twin" if name == "relu" else name)
        assert in_readme is None or in_readme[:2] == [mean, difference]


def test_the_sentences_about_the_ten_networks(pairs: dict[str, Paired]) -> None:
    section = " ".join(RESULTS.split("## Ten networks")[1].split("\n## ")[0].split())
    said = verdict(pairs, BASELINE, "network")
    assert said.startswith("With 5 shared seeds 2 of 9 networks differ from fixed_sg")
    for name in ("relu", "ds_atgo_at"):
        interval = simultaneous(pairs[name], len(pairs))
        assert interval is not None
        low, high = interval
        assert f"by {100 * pairs[name].sample.mean:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]" in section
    power = re.search(r"(\d+) shared seeds .*; (\d+) to (\d+)", power_line(list(pairs.values())) or "")
    assert power is not None
    assert f"{power[1]} seeds ({power[2]} to {power[3]}) would show a difference of 0.5 points" in section


def test_intervals_of_the_fourteen_methods_follow_from_their_spread() -> None:
    table = rows(RESULTS, "## Fourteen methods")
    assert len(table) == 14
    width = student_quantile(4, 0.975) / math.sqrt(5)
    for name, cells in table.items():
        mean, sd, low, high = (float(one) for one in re.findall(r"[\d.]+", " ".join(cells[:2])))
        rounding = 0.005 * (2 + width)
        assert (low, high) == pytest.approx((mean - width * sd, mean + width * sd), abs=rounding), name
