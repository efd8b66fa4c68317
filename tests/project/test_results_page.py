"""Every number of docs/results.md's comparisons and of the README's first table, computed again from stored numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import fmean, stdev

import pytest

from gradspike.statistics import Paired, holm, paired, simultaneous
from gradspike.tools.claims.quantities import QUANTITIES
from gradspike.tools.claims.summary import Record, read_summary
from gradspike.tools.compare.verdict import power_line, verdict
from helpers.command import ROOT

RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SUMMARIES = {
    "## Ten networks": ("main", "relu_twin"),
    "## Fourteen networks": ("nmnist", "nmnist_variants", "nmnist_relu_twin"),
}
BASELINE = "fixed_sg"
DASH = "\N{EN DASH}"
Runs = Mapping[str, Mapping[int, Record]]


@pytest.fixture(scope="module", params=SUMMARIES)
def heading(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def stored_runs(heading: str) -> Runs:
    """The runs of a table, by network and seed."""
    found: dict[str, dict[int, Record]] = defaultdict(dict)
    for name in SUMMARIES[heading]:
        for run in read_summary(ROOT / "docs" / "results" / "claims" / f"{name}.json").runs:
            network = str(run.parameters.get("method", "relu"))
            assert run.seed not in found[network]
            found[network][run.seed] = run
    return found


def accuracies(runs: Runs) -> dict[str, dict[int, float]]:
    return {name: {seed: run.values["accuracy"] for seed, run in of.items()} for name, of in runs.items()}


def pairs_of(runs: Runs) -> dict[str, Paired]:
    values = accuracies(runs)
    found = {name: paired(one, values[BASELINE]) for name, one in values.items() if name != BASELINE}
    return {name: pair for name, pair in found.items() if pair is not None}


def section(heading: str, text: str = RESULTS) -> str:
    return text.split(heading)[1].split("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """The cells of a table by the name in the first column."""
    lines = [line for line in text.splitlines() if line.startswith("|") and set(line) - set("|-: ")]
    found = [line.strip("| ").split(" | ") for line in lines]
    return {cells[0].strip("`"): cells[1:] for cells in found[1:]}


def of_pairs(pairs: Mapping[str, Paired], name: str) -> tuple[str, str]:
    """The difference with its interval, and the p-values, as the table has them."""
    if name not in pairs:
        return DASH, DASH
    one = pairs[name].sample
    assert one.low is not None
    assert one.high is not None
    corrected = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True))
    difference = f"{100 * one.mean:+.2f} [{100 * one.low:+.2f}, {100 * one.high:+.2f}]"
    return difference, f"{pairs[name].p:.3g} ({corrected[name]:.3g})"


def mean_of(runs: Mapping[int, Record], quantity: Callable[[Record], float]) -> str:
    values = [quantity(run) for run in runs.values()]
    return f"{fmean(values):.2f} ± {stdev(values):.2f}"


def test_the_tables(heading: str) -> None:
    runs, table = stored_runs(heading), rows(section(heading))
    assert table.keys() == runs.keys()
    pairs = pairs_of(runs)
    for name, of in runs.items():
        assert table[name][:2] == [str(len(of)), mean_of(of, QUANTITIES["accuracy"].of)]
        assert tuple(table[name][2:4]) == of_pairs(pairs, name)
        _, _, _, _, firing, gradient = table[name]
        if name == "relu":
            assert (firing, gradient) == (DASH, DASH)
            continue
        expected = {gradient: mean_of(of, QUANTITIES["available"].of)}
        if all("test_firing_rate" in run.values for run in of.values()):  # older summaries do not have it
            expected[firing] = mean_of(of, lambda run: 100 * run.values["test_firing_rate"])
        for cell, stored in expected.items():  # stored with four digits
            assert [float(one) for one in cell.split(" ± ")] == pytest.approx(
                [float(one) for one in stored.split(" ± ")], abs=0.011
            )


def test_the_table_of_the_readme() -> None:
    runs, short = stored_runs("## Ten networks"), rows(section("## Do the methods differ?", README))
    assert short.keys() - {"ReLU twin"} <= runs.keys()
    pairs = pairs_of(runs)
    for shown, cells in short.items():
        name = "relu" if shown == "ReLU twin" else shown
        assert cells[:2] == [mean_of(runs[name], QUANTITIES["accuracy"].of), of_pairs(pairs, name)[0]]


def test_the_sentences_about_the_tables(heading: str) -> None:
    """The verdict, the interval of every network that differs (or of the largest difference), the number of seeds."""
    said = " ".join(section(heading).split())
    pairs = pairs_of(stored_runs(heading))
    found = verdict(pairs, BASELINE, "network").partition(";")[0].partition(":")[0]
    assert found.replace(BASELINE, f"`{BASELINE}`") in said
    intervals = {name: interval for name, pair in pairs.items() if (interval := simultaneous(pair, len(pairs)))}
    differing = [name for name, (low, high) in intervals.items() if low * high > 0]
    largest = max(pairs, key=lambda name: abs(pairs[name].sample.mean))
    for name in differing or [largest]:
        low, high = intervals[name]
        assert f"{100 * pairs[name].sample.mean:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]" in said
    power = re.search(r"(\d+) shared seeds .*; (\d+) to (\d+)", power_line(list(pairs.values())) or "")
    assert power is not None
    assert f"{power[1]} seeds ({power[2]} to {power[3]}) would show a difference of 0.5 points" in said


def test_the_sentence_about_firing_rates() -> None:
    heading = "## Fourteen networks"
    runs, said = stored_runs(heading), " ".join(section(heading).split())
    rates = {
        name: {seed: run.values["test_firing_rate"] for seed, run in of.items()}
        for name, of in runs.items()
        if name != "relu"
    }
    for name in ("ds_atgo", "ds_atgo_at", "mpd_agl"):
        pair = paired(rates[name], rates[BASELINE])
        assert pair is not None
        one = pair.sample
        assert one.low is not None
        assert one.high is not None
        interval = f"[{100 * one.low:+.2f}, {100 * one.high:+.2f}]"
        assert f"by {100 * one.mean:+.2f} {interval}" in said.replace(" points [", " ["), name
