"""`trainer.max_hours` and `resume=auto`: a run in sessions of limited length ends like an uninterrupted one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gradspike.cli import train as launch
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, OutOfTime
from gradspike.runs.folder import RunFolder
from gradspike.runs.newest import newest_run
from gradspike.training.checkpoint import load_checkpoint
from helpers.runs import assert_same_run, train

Compose = Callable[..., ExperimentConfig]


def test_a_run_out_of_time_saves_and_resume_auto_continues_it(
    tiny_config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unbroken = train(tiny_config("trainer.max_epochs=1", f"runs_dir={tmp_path / 'unbroken'}"))
    again = ["trainer.max_epochs=1", "resume=auto", "trainer.max_hours=null"]
    words = ["trainer.max_epochs=1", "resume=auto", "trainer.max_hours=1e-9"]
    steps = []
    for _ in range(3):  # each session takes one step, since the time is over before it
        with pytest.raises(OutOfTime, match=r"trainer\.max_hours=1e-09 after saving its state") as error:
            launch.train(tiny_config(*words), words)
        assert error.value.exit_code == 75
        (run,) = map(RunFolder, (tmp_path / "runs").glob("2*"))
        assert run.state() == "interrupted"
        steps.append(load_checkpoint(run.last)["global_step"])
    assert steps == [1, 2, 3]
    assert "has no run of this configuration; starting a new one" in capsys.readouterr().out
    assert launch.train(tiny_config(*again), again) == 0
    assert_same_run(unbroken, run)
    # Nothing is left to do, and a job that is queued again does not train once more.
    assert launch.train(tiny_config(*again), again) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out
    assert len(list((tmp_path / "runs").glob("2*"))) == 1


def test_the_newest_unfinished_run_of_the_same_configuration(tiny_config: Compose) -> None:
    config = tiny_config()
    assert newest_run(config) is None
    runs = []
    for number, state in enumerate(("interrupted", "failed", "finished")):
        run = RunFolder.create(config)
        run.set_status(state)
        runs.append(RunFolder(run.path.rename(run.path.with_name(f"2026-01-0{number + 1}_run"))))
    others = [RunFolder.create(tiny_config(*words)) for words in (["seed=1"], ["optimizer.lr=0.2"], ["method=psg"])]
    for damaged in ("seed: 0\nmodel: [", "seed: 0\n", ""):
        (RunFolder.create(config).path / "config.yaml").write_text(damaged)

    def found(*words: str) -> Path | None:
        run = newest_run(tiny_config(*words))
        return None if run is None else run.path

    assert found() == runs[1].path
    assert found("resume=auto", "trainer.max_hours=2", "logger=wandb") == runs[1].path
    assert found("optimizer.lr=0.2") == others[1].path
    assert found("optimizer.lr=0.3") is None
    runs[1].set_status("finished")
    assert found() == runs[0].path
    runs[0].set_status("finished")
    assert found() == runs[2].path


def test_of_a_run_and_its_copy_neither_is_chosen(tiny_config: Compose) -> None:
    """Their starts are equal, and nothing says which of them to continue."""
    config = tiny_config()
    run = RunFolder.create(config)
    run.set_status("interrupted")
    link = run.path.with_name("latest")
    link.symlink_to(run.path)
    assert Path(newest_run(config).path).resolve() == run.path  # type: ignore[union-attr]
    backup = shutil.copytree(run.path, run.path.with_name("backup"))
    with pytest.raises(ConfigError, match=r"backup, .* are copies of one run"):
        newest_run(config)
    for folder in (run, RunFolder(backup)):
        folder.set_status("finished")
    assert newest_run(config) is not None


def test_the_newest_run_is_that_of_the_latest_start(tiny_config: Compose) -> None:
    """Whatever its folder is called, and whatever the offset of the clock: summer time ends between the two."""
    config = tiny_config()
    starts = {"zz_renamed": "2026-10-25T02:50:00+02:00", "a_copy": "2026-10-25T02:10:00+01:00"}
    for name, started in starts.items():
        run = RunFolder.create(config)
        run.set_status("interrupted")
        (run.path / "environment.json").write_text(json.dumps([{"started": started}]))
        run.path.rename(run.path.with_name(name))
    newest = newest_run(config)
    assert newest is not None
    assert newest.path.name == "a_copy"


def test_resume_auto_with_processes_that_look_by_themselves(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="resume=auto: does not work with srun or torchrun"):
        launch.train(tiny_config("resume=auto", "trainer.devices=2"), ["resume=auto", "trainer.devices=2"])
