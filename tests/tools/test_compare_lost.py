"""Results of finished runs that were lost are written again from the checkpoint, or their absence is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gradspike.runs.folder import RunFolder
from gradspike.tools.compare import report
from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.groups import group_runs
from helpers.command import here
from helpers.compared import folder_of


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("summary.json", None),
        ("confusion.json", 0.0),
        ("layers.json", 0.5),
        ("neurobench.json", 0.5),
        ("metrics.jsonl", 0.5),
    ],
)
def test_lost_results_of_a_finished_run_are_written_again(
    compared_runs: Path, tmp_path: Path, name: str, keep: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing, empty or cut short. Of metrics.jsonl, only the checkpoint's part can be cut back to."""
    original = folder_of(compared_runs, "mpd_agl", 0)
    run = RunFolder(Path(shutil.copytree(original, tmp_path / original.name)))
    words = ["train", f"resume={run.path}"]
    assert "is finished; nothing to do" in here(words, capsys)[1]
    file = run.path / name
    whole = file.read_bytes()
    file.unlink()
    if keep is not None:
        file.write_bytes(whole[: int(keep * len(whole))])
    code, printed, error = here(words, capsys)
    assert f"results are missing or damaged: {name}." in printed
    if name == "metrics.jsonl":
        assert code == 1, printed
        assert "metrics.jsonl" in error
        return
    assert code == 0, error
    for record in ("summary.json", "confusion.json", "layers.json", "neurobench.json", "metrics.jsonl"):
        assert (run.path / record).read_bytes() == (original / record).read_bytes(), record


def test_a_run_without_neurobenchs_metrics_is_named(
    compared_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of older versions have none, so their absence is no damage."""
    copies = Path(shutil.copytree(compared_runs, tmp_path / "runs"))
    lost = folder_of(copies, "mpd_agl", 1)
    whole = report.compare(group_runs(gather([copies]).runs), (), ())
    assert not any("NeuroBench" in note for note in whole.notes)
    (lost / "neurobench.json").unlink()
    notes = report.compare(group_runs(gather([copies]).runs), (), ()).notes
    assert any("NeuroBench" in note and lost.name in note for note in notes)
    code, printed, _ = here(["train", f"resume={lost}"], capsys)
    assert code == 0
    assert "is finished; nothing to do" in printed
    assert "It has no neurobench.json; `gradspike describe run=" in printed


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"last": null}',
        '{"last": [{"macs": null}]}',
        '{"last": [{"macs": 1, "input": "real", "nonzero": [null]}]}',
    ],
)
def test_a_run_without_its_layers_is_named(compared_runs: Path, tmp_path: Path, content: str) -> None:
    copies = Path(shutil.copytree(compared_runs, tmp_path / "runs"))
    lost = folder_of(copies, "mpd_agl", 1)
    assert not any("energy" in note for note in report.compare(group_runs(gather([copies]).runs), (), ()).notes)
    (lost / "layers.json").write_text(content)
    notes = report.compare(group_runs(gather([copies]).runs), (), ()).notes
    assert any("Without energy" in note and lost.name in note for note in notes)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_run_without_all_its_times_is_named(compared_runs: Path, tmp_path: Path, keep: float) -> None:
    copies = Path(shutil.copytree(compared_runs, tmp_path / "runs"))
    timing = folder_of(copies, "mpd_agl", 1) / "timing.jsonl"
    assert not any("timing.jsonl" in note for note in report.compare(group_runs(gather([copies]).runs), (), ()).notes)
    content = timing.read_bytes()
    timing.write_bytes(content[: int(keep * len(content))])
    notes = report.compare(group_runs(gather([copies]).runs), (), ()).notes
    assert any("timing.jsonl" in note and timing.parent.name in note for note in notes)


def test_lost_results_without_a_checkpoint(
    compared_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = folder_of(compared_runs, "mpd_agl", 0)
    run = RunFolder(Path(shutil.copytree(original, tmp_path / original.name)))
    shutil.rmtree(run.checkpoints)
    words = ["train", f"resume={run.path}"]
    assert here(words, capsys)[0] == 0
    (run.path / "layers.json").unlink()
    code, _, error = here(words, capsys)
    assert code == 1
    assert "layers.json. Without a checkpoint, they cannot be written again." in error
    assert run.state() == "finished"
