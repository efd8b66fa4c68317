"""A run keeps its id, lock and clock when its folder is renamed, copied, killed or resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradspike.cli import train as launch
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, UserError
from gradspike.runs.folder import RunFolder
from gradspike.runs.timing import training_seconds
from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.sweeps import gather_sweep
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.trial import find_run
from gradspike.training.callbacks.checkpoints import Checkpoints
from helpers.runs import at_batch, train
from helpers.wandb_records import inspect

Compose = Callable[..., ExperimentConfig]


def test_an_id_stays_when_the_folder_is_renamed(tiny_config: Compose, tmp_path: Path) -> None:
    run = RunFolder.create(tiny_config())
    assert run.path.name.endswith(f"_{run.id}")
    moved = RunFolder(run.path.rename(tmp_path / "sg_run1"))
    assert moved.id == run.path.name.rpartition("_")[2]
    assert RunFolder(Path(shutil.copytree(moved.path, tmp_path / "a copy"))).id == moved.id


def test_a_run_from_before_ids_were_stored_has_that_of_its_name(
    tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tiny_config())
    (run.path / "run.json").unlink()
    expected = run.path.name.rpartition("_")[2]
    monkeypatch.chdir(run.path)
    assert {RunFolder(Path()).id, RunFolder.open(".").id, run.id} == {expected}


@pytest.mark.parametrize("inner", ["checkpoints", "checkpoints/last.ckpt", "config.yaml"])
def test_a_path_within_a_run_names_the_run(tiny_config: Compose, inner: str) -> None:
    run = RunFolder.create(tiny_config())
    with pytest.raises(ConfigError) as error:
        RunFolder.open(str(run.path / inner))
    assert str(error.value).endswith(f"Did you mean '{run.path}'?")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"id": 7}', '{"id": ""}'])
def test_a_damaged_id_is_refused(tiny_config: Compose, content: str) -> None:
    run = RunFolder.create(tiny_config())
    (run.path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json: is damaged"):
        _ = run.id


@pytest.mark.parametrize(
    "typed", [".", "./", "../sg_run1", "../sg_run1/", "checkpoints/..", "../linked", "../linked/."]
)
def test_any_way_to_write_a_path_opens_the_same_run(
    tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    created = RunFolder.create(tiny_config())
    place = created.path.rename(tmp_path / "sg_run1")
    (tmp_path / "linked").symlink_to(place, target_is_directory=True)
    monkeypatch.chdir(place)
    run = RunFolder.open(typed)
    monkeypatch.chdir("/")
    assert (run.path, run.id, run.state()) == (place, created.path.name.rpartition("_")[2], "running")


def test_a_created_run_stays_where_it_is_after_a_chdir(
    tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create(tiny_config("runs_dir=here"))
    monkeypatch.chdir("/")
    assert run.path.parent == tmp_path / "here"
    assert run.state() == "running"


def test_wandb_keeps_its_id_when_a_renamed_run_is_resumed_from_within(
    tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = train(tiny_config("logger=wandb", "trainer.max_epochs=1"))
    run_id = run.path.name.rpartition("_")[2]
    run.set_status("interrupted")
    moved = RunFolder(run.path.rename(tmp_path / "sg_run1"))
    monkeypatch.chdir(moved.path)
    assert launch.train(tiny_config("resume=."), ["resume=."]) == 0
    starts = [record["run"]["run_id"] for record in inspect(moved) if record["type"] == "run"]
    assert starts == [run_id, run_id]


@pytest.fixture
def two(compared_runs: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of different methods whose names have the same ending."""
    folder = tmp_path / "two"
    for label, name in (("fixed_sg", "sg_run1"), ("mpd_agl", "psg_run1")):
        (source,) = compared_runs.glob(f"*_{label}_*_s1_*")
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("*.ckpt"))
    return folder / "sg_run1", folder / "psg_run1"


@pytest.mark.parametrize("stored", [True, False])
def test_runs_whose_names_end_alike_are_compared(two: tuple[Path, Path], stored: bool) -> None:
    if not stored:
        for place in two:
            (place / "run.json").unlink()
    found = gather([two[0].parent])
    assert sorted(run.label for run in found.runs) == ["fixed_sg", "mpd_agl"]
    assert found.excluded == ()


def test_a_copy_with_changed_metrics_is_still_a_copy(two: tuple[Path, Path]) -> None:
    copy = Path(shutil.copytree(two[0], two[0].parent / "other_name"))
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1000, "note": 1}\n')
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text("# by hand\n" + yaml.safe_dump(config))
    summary = json.loads((copy / "summary.json").read_text())
    summary["test"]["last"]["accuracy"] = 0.125
    (copy / "summary.json").write_text(json.dumps(summary))
    found = gather([two[0].parent])
    assert len(found.runs) == 2
    (told,) = found.excluded
    assert "is a copy of" in told.reason
    assert "DIFFERENT test accuracy" in told.reason


def test_a_damaged_id_is_listed_by_compare(two: tuple[Path, Path]) -> None:
    (two[0] / "run.json").write_text("{")
    (told,) = gather([two[0].parent]).excluded
    assert told.reason == "its run.json is damaged"


def test_trials_keep_their_runs_when_folders_swap_names(two: tuple[Path, Path], tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    folder.runs.mkdir(parents=True)
    for number, place in enumerate(two):
        run = RunFolder(Path(shutil.copytree(place, folder.runs / place.name)))
        folder.trial(number).mkdir(parents=True)
        record = Record(number=number, state="finished", parameters={}, overrides=[])
        folder.write(record.model_copy(update={"run": f"runs/{place.name}", "run_id": run.id}))
    (folder.path / "sweep.json").write_text("{}")
    names = [place.name for place in two]
    for old, new in ((names[0], "spare"), (names[1], names[0]), ("spare", names[1])):
        (folder.runs / old).rename(folder.runs / new)
    found = [find_run(folder, record) for number in (0, 1) if (record := folder.record(number)) is not None]
    assert [run.path.name for run in found if run is not None] == [names[1], names[0]]
    assert [run.path.rpartition("/")[2] for run in gather_sweep(folder.path).runs] == sorted(names)
    shutil.rmtree(folder.runs / names[0])
    record = folder.record(1)
    assert record is not None
    assert find_run(folder, record) is None, "the run that now has the recorded name is another trial's"
    assert [run.path.rpartition("/")[2] for run in gather_sweep(folder.path).runs] == [names[1]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_locked_run_is_refused_before_anything_is_written(tiny_config: Compose, tmp_path: Path) -> None:
    run = RunFolder.create(tiny_config(f"data_dir={tmp_path / 'data'}"))
    run.set_status("interrupted", "Stopped by SIGTERM")
    other = RunFolder(run.path)
    other.lock()
    before = contents(tmp_path)
    with pytest.raises(UserError, match="another process is training this run"):
        launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])
    assert contents(tmp_path) == before, "neither its files nor prepared data"
    assert os.listdir(run.path.parent) == [run.path.name]
    other.unlock()


def test_a_new_run_that_cannot_be_locked_leaves_no_folder(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    original = RunFolder.create

    def locked_by_another(config: ExperimentConfig) -> RunFolder:
        run = original(config)
        (run.path / ".lock").mkdir()  # opening it for writing fails, as on a full disk
        return run

    monkeypatch.setattr(RunFolder, "create", locked_by_another)
    with pytest.raises(UserError, match=r"\.lock: cannot be opened"):
        train(config)
    assert os.listdir(config.runs_dir) == []


def seconds(run: RunFolder) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in run.timing.read_text().splitlines()]
    return [(line["epoch"], line["epoch_seconds"]) for line in lines]


def test_an_epoch_that_is_trained_again_counts_once(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the line of its second epoch was written, before the epoch was saved."""
    saved = 0
    original = Checkpoints.save_last

    def dies(self: Checkpoints, trainer: Any, batch_idx: int) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise OSError("killed")
        original(self, trainer, batch_idx)

    monkeypatch.setattr(Checkpoints, "save_last", dies)
    config = tiny_config()
    with pytest.raises(OSError, match="killed"):
        train(config)
    monkeypatch.undo()
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    assert [epoch for epoch, _ in seconds(run)] == [0, 1]
    with run.timing.open("a") as file:
        file.write('{"epoch": 2, "epoch_sec')  # and a line that the kill cut short
    train(config, run)
    assert [epoch for epoch, _ in seconds(run)] == [0, 1]
    assert training_seconds(run.timing) == pytest.approx(sum(spent for _, spent in seconds(run)))


def test_the_kept_part_of_an_epoch_counts(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved after 7 steps of 19 and killed at the tenth: 7 steps, then 12 more. Lost steps do not count."""
    clock = 0.0
    monkeypatch.setattr("gradspike.training.callbacks.timing.time.perf_counter", lambda: clock)

    def fail() -> None:
        raise OSError("the disk is gone")

    def step(number: int) -> Callable[[], None]:
        def tick() -> None:
            nonlocal clock
            clock += 10.0
            if number == 10:
                fail()

        return tick

    for number in range(1, 11):
        at_batch(monkeypatch, number, step(number))
    config = tiny_config("checkpoint.every_n_steps=7", "trainer.max_epochs=1")
    with pytest.raises(OSError, match="the disk is gone"):
        train(config)
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    assert not run.timing.exists()
    clock = 5000.0
    train(config, run)
    (line,) = [json.loads(one) for one in run.timing.read_text().splitlines()]
    assert line["epoch_seconds"] == 70.0
    assert line["samples_per_second"] * line["train_seconds"] == pytest.approx(19 * 64, rel=0.01)


def test_lines_of_former_versions_count_once(tmp_path: Path) -> None:
    file = tmp_path / "timing.jsonl"
    lines = [{"epoch": 0, "epoch_seconds": 2.0}, {"epoch": 1, "epoch_seconds": 3.0}, {"epoch": 1, "epoch_seconds": 2.5}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 2, "ep')
    assert training_seconds(file) == 5.0
    assert training_seconds(tmp_path / "none") == 0.0
