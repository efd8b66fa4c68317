"""Whole runs: what they write, that they are repeatable, and that they resume bit for bit."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gradspike.cli import train as launch
from gradspike.cli.evaluate import evaluate
from gradspike.config.compose import CONF_DIR, load_config, options_of
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import UserError
from gradspike.methods.registry import METHODS
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import AtomicFiles, load_checkpoint
from gradspike.training.module import SpikingClassifier
from helpers.forks import fork_server
from helpers.runs import assert_same_run, epoch_records, train
from helpers.signalled import start

Compose = Callable[..., ExperimentConfig]


def test_run_folder_is_complete(tiny_config: Compose) -> None:
    config = tiny_config("seed=3", "method=ds_atgo_at")
    run = train(config)
    assert "_ds_atgo_at_digits_spiking_cnn_s3_" in run.path.name
    assert run.config() == config
    assert run.state() == "finished"
    records = epoch_records(run)
    assert [record["epoch"] for record in records] == [0, 1]
    names = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/firing_rate", "lr", "step"}
    assert names <= set(records[0])
    summary = run.summary()
    assert summary["val"]["last"]["accuracy"] == records[-1]["val/accuracy"]
    assert summary["val"]["best"]["accuracy"] == max(record["val/accuracy"] for record in records)
    assert 0 <= summary["test"]["best"]["accuracy"] <= 1
    assert 0 < summary["test"]["last"]["firing_rate"] < 1
    session = json.loads((run.path / "environment.json").read_text())[0]
    assert session["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (run.path / "run.log").read_text()
    timing = [json.loads(line) for line in run.timing.read_text().splitlines()]
    assert all(line["samples_per_second"] > 0 for line in timing)


# Ablations share the code of their method, so they need not see both kinds of data.
ON_DATA = [(method, "digits") for method in options_of("method", [CONF_DIR])]
ON_DATA += [(method, "digits_events") for method in METHODS.names()]


@pytest.mark.parametrize(("method", "dataset"), ON_DATA)
def test_every_method_and_ablation_trains_from_its_name(tiny_config: Compose, method: str, dataset: str) -> None:
    options = ["time_steps=3", "dataset.batch_size=256", "trainer.max_epochs=1"]
    run = train(tiny_config(f"method={method}", f"dataset={dataset}", *options))
    assert run.summary()["method"] == method
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert any("probe_val/mean/gradient_available" in record for record in records)


def test_the_twin_is_named_and_grouped_apart_from_every_method(tiny_config: Compose) -> None:
    run = train(tiny_config("model.activation=relu", "trainer.max_epochs=1"))
    assert "_relu_digits_spiking_cnn_" in run.path.name
    assert run.summary()["method"] == "relu"


def test_checkpoints_are_plain(tiny_config: Compose) -> None:
    run = train(tiny_config())
    checkpoint = torch.load(run.last, weights_only=True)
    assert checkpoint["config"]["method"]["name"] == "mpd_agl"


def test_two_runs_in_one_second_have_two_folders(tiny_config: Compose) -> None:
    config = tiny_config()
    assert len({RunFolder.create(config).path for _ in range(20)}) == 20


@pytest.mark.parametrize("extra", [[], ["trainer.precision=bf16"], ["method=psg_pda", "trainer.gradient_clip=1"]])
def test_same_seed_same_run_and_another_seed_another(tiny_config: Compose, extra: list[str]) -> None:
    first, second, other = (train(tiny_config(f"seed={seed}", *extra)) for seed in (0, 0, 1))
    assert_same_run(first, second)
    assert first.metrics.read_bytes() != other.metrics.read_bytes()


def test_a_run_killed_between_epochs_resumes_bit_for_bit(tiny_config: Compose, tiny: Callable[..., list[str]]) -> None:
    unbroken = train(tiny_config("trainer.max_epochs=3"))
    run = killed(tiny("trainer.max_epochs=3", "runs_dir=" + str(unbroken.path.parent / "killed")), signal.SIGKILL)
    assert run.state() == "running"
    assert launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"]) == 0
    assert_same_run(unbroken, run)


@pytest.mark.parametrize(
    ("signum", "method"),
    [
        (signal.SIGTERM, ["method=ds_atgo"]),
        (signal.SIGINT, ["method=ds_atgo"]),
        (signal.SIGHUP, ["method=ds_atgo"]),
        (signal.SIGTERM, ["method=asgl", "method.gamma=0.5"]),  # noise whose share follows the epoch
        pytest.param(signal.SIGTERM, ["method=dspike_adaptive", "method.weights=4"], marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_within_an_epoch_resumes_bit_for_bit(
    tiny_config: Compose, tiny: Callable[..., list[str]], signum: signal.Signals, method: list[str]
) -> None:
    options = ["trainer.max_epochs=8", *method, "checkpoint.every_n_steps=5"]
    unbroken = train(tiny_config(*options))
    words = tiny(*options, f"runs_dir={unbroken.path.parent / 'stopped'}")
    run = killed(words, signum)
    assert run.state() == "interrupted"
    assert load_checkpoint(run.last)["epoch"] < 7
    launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])
    assert_same_run(unbroken, run)


def killed(words: list[str], signum: signal.Signals) -> RunFolder:
    """Start a run as a process, end it once its first epoch is saved, and check the exit code."""
    folder = Path(next(word for word in reversed(words) if word.startswith("runs_dir=")).partition("=")[2])
    process = start(words)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signum)
    output = process.communicate()[0]
    if signum == signal.SIGKILL:
        assert process.returncode == -signum
    else:
        assert process.returncode == 128 + signum, output
        assert "resume=" in output
    assert "Traceback" not in output
    return RunFolder(next(folder.glob("2*")))


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_a_checkpoint_within_an_epoch_continues_with_the_next_batch(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """A crash five batches after the newest save: those batches are trained again, the epoch's running numbers
    included.
    """
    options = ("checkpoint.every_n_steps=7", f"optimizer={optimizer}")
    unbroken = train(tiny_config(*options))
    steps = 0
    original = SpikingClassifier.training_step

    def failing(self: Any, batch: Any, batch_idx: int) -> Any:
        nonlocal steps
        steps += 1
        if steps == 19 + 12:
            raise OSError("the disk is gone")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpikingClassifier, "training_step", failing)
    config = tiny_config(*options, f"runs_dir={unbroken.path.parent / 'crashed'}")
    with pytest.raises(OSError, match="the disk is gone"):
        train(config)
    monkeypatch.undo()
    run = RunFolder(next((unbroken.path.parent / "crashed").glob("2*")))
    assert run.state() == "failed"
    assert load_checkpoint(run.last)["global_step"] == 28
    train(run.config(), run)
    assert_same_run(unbroken, run)


def test_a_home_folder_is_expanded(tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = RunFolder.create(tiny_config("runs_dir='~/my runs'"))
    assert run.path.parent == tmp_path / "my runs"
    assert RunFolder.open(f"~/my runs/{run.path.name}").path == run.path


def test_a_checkpoint_that_cannot_be_saved_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "last.ckpt"
    target.write_bytes(b"whole")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left"):
        AtomicFiles().save_checkpoint({}, target)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert target.read_bytes() == b"whole"


def test_resume_of_a_run_without_a_checkpoint_starts_it(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])
    assert run.state() == "finished"


def test_evaluate_repeats_the_summary_and_notes_a_read_only_folder(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_config("dataset=digits_events", "time_steps=2", "trainer.max_epochs=1"))
    process = fork_server().start("evaluate", f"run={run.path}", "split=test", "accelerator=cpu")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert json.loads((run.path / "evaluation_test.json").read_text()) == run.summary()["test"]
    assert evaluate([f"run={run.path}", "split=val", "checkpoint=last"]) == 0
    val = json.loads((run.path / "evaluation_val.json").read_text())
    assert val["last"]["accuracy"] == run.summary()["val"]["last"]["accuracy"]
    (run.path / "evaluation_val.json").unlink()

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))  # root may write to every folder that it can mount

    monkeypatch.setattr("gradspike.runs.files.tempfile.mkstemp", refuse)
    capsys.readouterr()
    assert evaluate([f"run={run.path}", "split=val", "checkpoint=last"]) == 0
    printed = capsys.readouterr()
    assert "accuracy" in printed.out
    assert "written:" not in printed.out
    assert printed.err.startswith("Note: the run folder is read-only, so the result is not recorded: ")


def test_two_processes_train_as_one(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    """DDP over two CPU processes: one folder, one record, and every sample evaluated once."""
    process = start(tiny("trainer.devices=2", "trainer.max_epochs=1", "trainer.progress=lines"))
    output = process.communicate()[0]
    assert process.returncode == 0, output
    runs = list((tmp_path / "runs").glob("2*"))
    assert len(runs) == 1
    run = RunFolder(runs[0])
    assert len(epoch_records(run)) == 1
    assert run.summary()["steps"] == 1257 // 64
    assert output.count("epoch 1/1") == 1
    # No sample of the test split is missing or counted twice: a whole number of correct answers out of 359.
    right = run.summary()["test"]["last"]["accuracy"] * 359
    assert right == pytest.approx(round(right), abs=1e-4)


def test_saved_configuration_is_readable_by_others(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    assert yaml.safe_load((run.path / "config.yaml").read_text())["optimizer"]["lr"] == 0.1
    assert (run.path / "config.yaml").stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "least"), [("digits", 0.97), ("digits_events", 0.93)])
def test_default_training_reaches_its_accuracy(dataset: str, least: float, data_dir: Path, tmp_path: Path) -> None:
    for seed in range(2):
        words = [
            f"dataset={dataset}",
            f"seed={seed}",
            f"data_dir={data_dir}",
            f"runs_dir={tmp_path}",
            "trainer.progress=none",
        ]
        run = train(load_config(words))
        assert run.summary()["test"]["last"]["accuracy"] >= least
