"""Runs that are refused: resumed with another configuration, damaged, in use, diverged, evaluated as something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from gradspike.cli import train as launch
from gradspike.cli.evaluate import evaluate
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, UserError
from gradspike.runs.folder import RunFolder
from gradspike.runs.resume import resumed_config
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.module import Diverged
from helpers.runs import train

Compose = Callable[..., ExperimentConfig]


def test_a_finished_run_is_left_alone(tiny_config: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tiny_config())
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*") if file.is_file()}
    assert launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in run.path.rglob("*") if file.is_file()}


def test_resume_refuses_another_configuration(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    words = [f"resume={run.path}", "optimizer.lr=0.3", "method=fixed_sg", "trainer.progress=lines"]
    with pytest.raises(ConfigError, match="keeps its configuration") as error:
        launch.train(tiny_config(*words), words)
    assert "optimizer.lr: the run has 0.1, the command line 0.3" in str(error.value)
    assert "method.name: the run has mpd_agl, the command line fixed_sg" in str(error.value)
    assert "progress:" not in str(error.value)


@pytest.mark.parametrize(
    ("started_with", "typed"),
    [
        ("method=mpd_agl_no_gamma", "method=mpd_agl"),
        ("method=mpd_agl", "method=mpd_agl_no_time"),
        ("seed=0", "trainer=ddp4"),
    ],
)
def test_resume_refuses_another_variant(tiny_config: Compose, started_with: str, typed: str) -> None:
    run = RunFolder.create(tiny_config(started_with))
    with pytest.raises(ConfigError, match="keeps its configuration"):
        resumed_config(run, tiny_config(typed), [typed])
    resumed_config(run, tiny_config(started_with), [started_with])


def test_a_group_and_its_keys_typed_again_are_the_same_run(tiny_config: Compose) -> None:
    words = ["dataset=digits", "dataset.batch_size=32", "dataset.workers=1"]
    run = RunFolder.create(tiny_config("dataset=digits", "dataset.batch_size=32"))
    assert resumed_config(run, tiny_config(*words), words).dataset.workers == 1


def test_resume_refuses_other_samples(tiny_config: Compose) -> None:
    """On resume, the data may have moved but must be the same."""
    run = train(tiny_config("trainer.max_epochs=1"))
    content = load_checkpoint(run.last)
    assert len(content["data"]) == 64
    torch.save({**content, "data": "another"}, run.last)
    config = run.config()
    with pytest.raises(UserError, match="the run was trained on samples with the digest"):
        train(config, run)


def test_damaged_small_files_do_not_matter(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config("trainer.max_epochs=1"))
    (run.path / "environment.json").write_text("{")
    train(run.config(), run)
    assert json.loads((run.path / "environment.json").read_text())[0] == {"damaged": "{"}


def test_evaluate_of_another_network(tiny_config: Compose) -> None:
    run = train(tiny_config("trainer.max_epochs=1"))
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    config["model"]["width"] = 8
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="does not fit the network"):
        evaluate([f"run={run.path}"])


def test_weights_that_blow_up_in_the_last_step_are_noticed(tiny_config: Compose) -> None:
    with pytest.raises(Diverged):
        train(tiny_config("dataset.batch_size=100000", "trainer.max_epochs=1", "optimizer.lr=1e38"))


@pytest.mark.parametrize("damage", ["cut short", "empty", "another file"])
def test_a_damaged_checkpoint_is_refused(tiny_config: Compose, damage: str) -> None:
    run = train(tiny_config("trainer.max_epochs=1"))
    whole = run.last.read_bytes()
    if damage == "another file":
        torch.save({"weights": torch.zeros(3)}, run.last)
    else:
        run.last.write_bytes(whole[: len(whole) // 2 if damage == "cut short" else 0])
    run.set_status("interrupted")
    with pytest.raises(UserError, match=r"last\.ckpt: is (damaged|not a checkpoint)"):
        launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])
    assert run.state() == "interrupted"


def test_a_damaged_config_is_refused(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    (run.path / "config.yaml").write_text("seed: [1")
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read"):
        launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])


def test_a_run_in_use_is_refused(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    other = RunFolder(run.path)
    other.lock()
    with pytest.raises(UserError, match="another process"):
        train(run.config(), run)
    other.unlock()


def test_a_loss_that_is_not_finite_ends_the_run(tiny_config: Compose) -> None:
    config = tiny_config("optimizer.lr=1e30")
    with pytest.raises(Diverged, match=r"epoch 1, batch 3.*optimizer\.lr \(now 1e\+30\)"):
        train(config)
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    assert run.state() == "failed"
    assert (run.checkpoints / "diverged.ckpt").is_file()
    assert not run.last.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=no/such/run"], "is not a run folder"),
        (["spit=test"], "Did you mean 'split'"),
        (["run=x", "split=tset"], "split"),
        (["split=test"], "run: "),
    ],
)
def test_evaluate_refuses(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate(words)


def test_evaluate_of_a_run_that_never_saved(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    with pytest.raises(
        UserError, match=r"unknown checkpoint '.*last\.ckpt'\. The run is not finished: it was killed\."
    ):
        evaluate([f"run={run.path}"])
