"""Claims: files, stored numbers of sweeps, and the pages made of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradspike.__main__ import main
from gradspike.errors import ConfigError, UserError
from gradspike.tools.claims.claim import read_claims
from gradspike.tools.claims.collect import collect, merge
from gradspike.tools.claims.command import _of_sweeps, stored
from gradspike.tools.claims.inside import inside
from gradspike.tools.claims.pictures import pictures
from gradspike.tools.claims.quantities import QUANTITIES
from gradspike.tools.claims.summary import Record, Summary, read_summary, summary_text
from helpers.claimed import summary_of
from helpers.command import ROOT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantity": "acuracy"}, "unknown quantity 'acuracy'. Did you mean 'accuracy'"),
        ({"exact": "firing_rate"}, "exact needs no runs: remove summary, quantity"),
        ({"expect": {"abov": 0}}, "unknown key 'abov'. Did you mean 'above'"),
        ({"expect": {"above": 2, "below": 1}}, "above must be smaller than below"),
        ({"summary": None}, "needs exact, or summary and quantity"),
    ],
)
def test_mistakes_in_a_claim_file(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = {"what": "x", "summary": "s", "quantity": "accuracy", "of": {}, "expect": {"above": 0}} | changes
    claim = {"id": "A1", "statement": "s", "source": "s", "paper": "p", "parts": [part]}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({"title": "t", "claims": [claim]}))
    assert main(["claims", "--claims", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_an_id_stands_once(tmp_path: Path) -> None:
    claim = {"id": "A1", "statement": "s", "source": "s", "paper": "p", "not_run": "no GPU"}
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"title": "t", "claims": [claim]}))
    with pytest.raises(ConfigError, match=r"two\.yaml: claim A1 is already in .*one\.yaml"):
        read_claims(tmp_path)


def test_every_claim_of_the_repository_names_a_sweep_or_a_script() -> None:
    sweeps = {path.stem for path in (ROOT / "sweeps" / "claims").glob("*.yaml")}
    scripts = {path.stem for path in (ROOT / "benchmarks" / "claims").glob("*.py")}
    assert read_claims(ROOT / "claims").summaries <= sweeps | scripts


def test_a_summary_reads_back_the_same(tmp_path: Path) -> None:
    summary = summary_of({"a": [0.5, 0.25]})
    file = tmp_path / "s.json"
    file.write_text(summary_text(summary))
    assert read_summary(file) == summary
    file.write_text("{}")
    with pytest.raises(ConfigError, match="is not a summary of runs"):
        read_summary(file)


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    """A folder of claims about the sweep below."""
    folder = tmp_path / "claims"
    folder.mkdir()
    part = {"what": "rate", "summary": "main", "quantity": "firing_rate", "of": {"method": "mpd_agl"}}
    measured = {"id": "A1", "statement": "s", "source": "s", "paper": "p", "parts": [part | {"expect": {"above": 0}}]}
    left_out = {"id": "A2", "statement": "s", "source": "s", "paper": "p", "not_run": "no GPU"}
    (folder / "some.yaml").write_text(yaml.safe_dump({"title": "t", "claims": [measured, left_out]}))
    return folder


@pytest.fixture
def sweep(compared_runs: Path, tmp_path: Path) -> Path:
    """The folder of a sweep over method and seed whose trials are finished runs."""
    folder = tmp_path / "main"
    runs = [run for run in sorted(compared_runs.rglob("summary.json")) if "relu" not in str(run)]
    parameters: dict[str, Any] = {
        "seed": {"values": [0, 1, 2]},
        "method": {"values": ["fixed_sg", "mpd_agl"]},
        "dataset": {"value": "digits"},
    }
    for number, file in enumerate(runs):
        config = yaml.safe_load((file.parent / "config.yaml").read_text())
        label = config["method"]["label"] or config["method"]["name"]
        place = folder / "runs" / file.parent.name
        shutil.copytree(file.parent, place, ignore=shutil.ignore_patterns("*.ckpt"))
        trial = folder / "trials" / str(number)
        trial.mkdir(parents=True)
        record = {
            "number": number,
            "state": "finished",
            "parameters": {"seed": config["seed"], "method": label},
            "overrides": ["dataset=digits", "dataset.source=/some/where", f"seed={config['seed']}", f"method={label}"],
            "run": f"runs/{file.parent.name}",
        }
        (trial / "trial.json").write_text(json.dumps(record))
    (folder / "sweep.json").write_text("{}")
    text = yaml.safe_dump({"program": "src/train.py", "method": "grid", "parameters": parameters})
    (folder / "sweep.yaml").write_text(f"# Which is best?\n#   gradspike sweep sweeps/claims/main.yaml\n{text}")
    return folder


def test_numbers_of_a_sweep_are_stored_and_are_those_of_its_runs(
    sweep: Path, claims: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    assert main(["claims", str(sweep), "--store", str(store), "--claims", str(claims)]) == 0
    summary = stored(store)["main"]
    assert summary.question == "Which is best?"
    assert summary.command == "gradspike sweep sweeps/claims/main.yaml dataset.source=<data>"
    assert "/some/where" not in (store / "main.json").read_text()
    for record, file in zip(summary.runs, sorted(sweep.glob("trials/*/trial.json")), strict=True):
        run = sweep / json.loads(file.read_text())["run"]
        result = json.loads((run / "summary.json").read_text())
        assert record.values["accuracy"] == pytest.approx(result["test"]["last"]["accuracy"], rel=1e-6)
        assert record.values["test_firing_rate"] == pytest.approx(result["test"]["last"]["firing_rate"], rel=1e-6)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        last = [line for line in lines if "probe_val/mean/firing_rate" in line][-1]
        rate = 100 * last["probe_val/mean/firing_rate"]
        assert QUANTITIES["firing_rate"].of(record) == pytest.approx(rate, rel=1e-3)
        share = 100 * last["probe_val/mean/gradient_available"]
        assert QUANTITIES["available"].of(record) == pytest.approx(share, rel=1e-3)
        sd = 100 * last["probe_val/spread_layers/firing_rate"]
        assert QUANTITIES["firing_rate_over_layers"].of(record) == pytest.approx(sd, abs=0.01)
    capsys.readouterr()


def test_networks_with_different_layers_have_no_numbers_of_layers_in_common(sweep: Path) -> None:
    name = collect(sweep).layers[0]
    metrics = next(sweep.glob("runs/*/metrics.jsonl"))
    metrics.write_text(metrics.read_text().replace(f"/{name}/", "/other/"))
    summary = collect(sweep)
    assert summary.layers == ()
    assert not any(run.last or run.start or run.course for run in summary.runs)


def test_folders_of_one_name_are_parts_of_one_sweep(sweep: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "main"
    shutil.copytree(sweep, other)
    for folder, odd in ((sweep, True), (other, False)):
        for file in folder.glob("trials/*/trial.json"):
            if int(file.parent.name) % 2 == odd:
                shutil.rmtree(file.parent)
    found = _of_sweeps([sweep, other], {})["main"]
    assert sorted((run.parameters["method"], run.seed) for run in found.runs) == [
        (method, seed) for method in ("fixed_sg", "mpd_agl") for seed in range(3)
    ]
    one = summary_of({"a": [0.5]}, setting={"time_steps": 2, "method.surrogate": "rectangular"})
    two = summary_of({"b": [0.5]}, setting={"time_steps": 2, "method.surrogate": "triangular"})
    both = merge(one, two, "main")
    assert both.setting == {"time_steps": 2}
    assert both.planned >= len(both.runs) == 2
    with pytest.raises(UserError, match=r"differ in time_steps\."):
        merge(one, summary_of({"b": [0.5]}, setting={"time_steps": 4}), "main")
    with pytest.raises(UserError, match="both parts have a run with seed"):
        _of_sweeps([sweep, sweep], {})


def test_parts_from_two_processors_share_no_seed() -> None:
    def part(seeds: range, method: str, processor: str, code: str = "x") -> Summary:
        runs = [Record(seed=seed, parameters={"method": method}, values={"accuracy": 0.5}) for seed in seeds]
        return summary_of({}, runs=tuple(runs), made_with={"processor": processor, "code": code})

    one = part(range(3), "a", "Old")
    both = merge(one, part(range(3, 5), "a", "New"), "main")
    assert both.made_with == {"processor": "Old (seeds 3, 4: New)", "code": "x"}
    assert len(both.runs) == 5
    for other in (part(range(2, 4), "b", "New"), part(range(3, 5), "a", "New", code="y")):
        with pytest.raises(UserError, match="its two parts differ in made_with"):
            merge(one, other, "main")


def test_new_runs_join_stored_ones_of_the_same_code(
    sweep: Path, claims: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(sweep / "trials" / "5", tmp_path / "last")
    store = tmp_path / "store"
    store.mkdir()
    words = ["claims", str(sweep), "--claims", str(claims), "--summaries", str(store), "--store", str(store)]
    assert main(words) == 0
    first = stored(store)["main"]
    shutil.rmtree(sweep / "trials")
    shutil.move(tmp_path / "last", sweep / "trials" / "5")
    assert main([*words, "--add"]) == 0
    both = stored(store)["main"]
    assert both.runs[:-1] == first.runs
    assert len(both.runs) == both.planned == 6
    assert main([*words, "--add"]) == 1
    assert "both parts have a run with seed" in capsys.readouterr().err
    other = both.model_copy(update={"made_with": {**both.made_with, "code": "another"}, "runs": first.runs})
    (store / "main.json").write_text(summary_text(other))
    assert main([*words, "--add"]) == 1
    assert "its two parts differ in made_with" in capsys.readouterr().err
    assert stored(store)["main"] == other
    assert main(["claims", "--add", "--claims", str(claims)]) == 2


def test_pages_have_the_figures_and_the_verdicts(sweep: Path, claims: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words = ["claims", str(sweep), "--claims", str(claims), "--summaries", str(tmp_path / "none")]
    assert main([*words, "--out", str(out / "claims.md"), "--out", str(out / "claims.html")]) == 0
    text = (out / "claims.md").read_text()
    images = re.findall(r"\]\((claims/[\w.]+)\)", text)
    assert len(images) >= 4
    assert all((out / image).read_text().lstrip().startswith("<?xml") for image in images)
    page = (out / "claims.html").read_text()
    assert page.count("<svg") == len(images)
    assert not re.search(r'(?:src|href)="(?!#)', re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "**A1**" in text
    assert "**holds here**" in text
    assert "**not run**: no GPU" in text
    assert page.count('<article id="A') == 2


def test_grids_are_drawn_with_their_numbers() -> None:
    plane = ((3.0, 2.5, None), (2.5, 1.5, 2.5), (3.0, 2.5, 3.0))
    runs = [
        Record(seed=seed, parameters={"method": method}, values={"loss": 1.5, "loss_rise": 0.25}, grids={"loss": plane})
        for seed, method in ((1, "a"), (1, "b"), (2, "a"))
    ]
    (drawn,) = pictures("some", summary_of({}, runs=tuple(runs), setting={"extent": 0.5}))
    assert drawn.svg.count(">loss 1.50, rise 0.25<") == len(runs)
    assert ">b, seed 1<" in drawn.svg
    image = ((0.0, 0.5), (1.0, 0.25))
    coded = Record(
        seed=0, parameters={"threshold": "1.0"}, values={"picture_ssim": 0.3}, grids={"image": image, "rate": image}
    )
    (drawn,) = pictures("some", summary_of({}, runs=(coded,)))
    assert "SSIM 0.30" in drawn.svg
    assert drawn.svg.count("<image ") == 2


def test_a_table_shows_the_inside_of_the_networks() -> None:
    layers = {"firing_rate": ((0.1, 0.2), (0.3, 0.4))}
    runs = [Record(seed=seed, parameters={"method": "a"}, values={}, last=layers) for seed in (0, 1)]
    heading, row = inside(summary_of({}, runs=tuple(runs)))
    assert heading[:4] == ["runs", "n", "firing rate (%)", "its SD over layers (points)"]
    assert [cell.replace("\xa0", " ") for cell in row[:5]] == [
        "a",
        "2",
        "25.00 ± 0.00",
        "10.00 ± 0.00",
        "\N{EN DASH}",
    ], "nothing else was measured"
    assert inside(summary_of({"a": [0.5]})) == []


def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", str(tmp_path), "--claims", str(ROOT / "claims")]) == 2
    assert "is not a sweep folder" in capsys.readouterr().err
    assert main(["claims", "--store", str(tmp_path)]) == 2
    assert "--store needs the folder of a sweep" in capsys.readouterr().err


def test_the_page_in_docs_is_that_of_the_stored_runs(tmp_path: Path) -> None:
    words = ["claims", "--claims", str(ROOT / "claims"), "--summaries", str(ROOT / "docs" / "results" / "claims")]
    assert main([*words, "--out", str(tmp_path / "claims.md")]) == 0
    assert (tmp_path / "claims.md").read_text() == (ROOT / "docs" / "claims.md").read_text(), (
        "run: gradspike claims --out docs/claims.md"
    )
