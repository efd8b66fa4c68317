"""`gradspike curves`: the numbers of a run, damaged and unfinished files, and the image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gradspike.json_text import readable_lines
from gradspike.tools.curves.records import Curves, read
from helpers.command import here

HEADS = ["loss", "accuracy (%)", "learning rate", "firing rate (%)", "gradient-available share (%)", "threshold"]
HEADS += ["surrogate width", "training time (s per epoch)"]


@pytest.fixture
def run(compared_runs: Path, tmp_path: Path) -> Path:
    """A copy of a run of mpd_agl, without its checkpoints."""
    source = next(compared_runs.glob("*_mpd_agl_*_s0_*"))
    return Path(shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("*.ckpt")))


def panel(found: Curves, title: str) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    (one,) = (one for one in found.panels if one.title == title)
    return {curve.name: (curve.x, curve.y) for curve in one.curves}


def test_the_curves_are_the_numbers_of_the_run(run: Path) -> None:
    found = read(run)
    assert [one.title for one in found.panels] == HEADS
    assert (found.epochs, found.damaged) == (2, 0)
    records = [record for record in readable_lines(run / "metrics.jsonl") if "train/loss" in record]
    assert panel(found, "loss")["validation"] == ((1, 2), tuple(record["val/loss"] for record in records))
    assert panel(found, "accuracy (%)")["training"][1] == tuple(100 * record["train/accuracy"] for record in records)
    probes = [record for record in readable_lines(run / "metrics.jsonl") if "probe/mean/kappa" in record]
    steps = records[0]["step"]
    widths = panel(found, "surrogate width")
    assert widths["mean"] == (
        tuple(record["step"] / steps for record in probes),
        tuple(record["probe/mean/kappa"] for record in probes),
    )
    assert list(widths)[1:] == ["neurons.0", "neurons.1"]
    assert panel(found, "firing rate (%)")["mean"][0] == (1, 2), "at each validation"


def test_an_unfinished_run_is_drawn_and_its_half_line_is_counted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text[:-40])
    (run / "timing.jsonl").unlink()
    (run / "summary.json").unlink()
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "running"}))  # and the process is gone
    code, printed, error = here(["curves", f"run={run}", "log=true", f"out={tmp_path / 'x.svg'}"], capsys)
    assert code == 0, error
    assert "Skipped 1 line of metrics.jsonl that cannot be read." in printed
    picture = (tmp_path / "x.svg").read_text()
    assert picture.count('<g id="axes_') == len(HEADS) - 1
    assert "(not finished: it was killed, 1 epoch)" in picture or "(not finished: it was killed, 2 epochs)" in picture
    assert sorted(tmp_path.iterdir()) == sorted([run, tmp_path / "x.svg"]), "nothing half-written stays"


def test_a_single_measurement_is_drawn_as_bars_and_numbers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    end = next(place for place, line in enumerate(lines) if "train/loss" in line)
    (run / "metrics.jsonl").write_text("\n".join(lines[: end + 1]) + "\n")
    loss = json.loads(lines[end])["train/loss"]
    once = [one.title for one in read(run).panels if one.by_layer and one.measured_once]
    assert "firing rate (%)" in once
    code, _, error = here(["curves", f"run={run}", f"out={tmp_path / 'x.svg'}"], capsys)
    assert code == 0, error
    picture = (tmp_path / "x.svg").read_text()
    assert picture.count("<!-- layer, from input to output (measured once, at epoch") == len(once)
    assert f"<!-- {loss:.4g} -->" in picture


def test_the_image_lies_in_the_run_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert here(["curves", f"run={run}"], capsys)[0] == 0
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run={run}", "out=x.jpg"], 2, "must end in one of .png"),
        (["run={run}x"], 2, "is not a run folder"),
        (["run={run}", "logg=true"], 2, "Did you mean 'log'?"),
        ([], 2, "run"),
        (["run={run}", "out=no/such/x.png"], 2, "unknown folder 'no/such'"),
    ],
)
def test_mistakes(run: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    result, _, error = here(["curves", *(word.replace("{run}", str(run)) for word in words)], capsys)
    assert result == code
    assert said in error


def test_a_run_without_numbers_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "timing.jsonl").unlink()
    code, _, error = here(["curves", f"run={run}"], capsys)
    assert code == 1
    assert "has no finished epoch and no measurement yet" in error
    assert not (run / "curves.png").exists()
