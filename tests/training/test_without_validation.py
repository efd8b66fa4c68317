"""Training on all data, without a validation split: the last epoch counts as the best."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gradspike.cli.evaluate import evaluate
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import Interrupted, UserError
from gradspike.runs.folder import RunFolder
from gradspike.terminal import tables as terminal
from gradspike.training import summary
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.module import Diverged
from helpers.runs import assert_same_run, at_batch, epoch_records, train

Compose = Callable[..., ExperimentConfig]
ALL = "dataset.name=helpers.all_digits:AllDigits"
STEPS = (1257 + 179) // 64  # of an epoch


@pytest.mark.parametrize("progress", ["lines", "bar"])
def test_a_whole_run(tiny_config: Compose, capsys: pytest.CaptureFixture[str], progress: str) -> None:
    run = train(tiny_config(ALL, f"trainer.progress={progress}", "trainer.ema=0.9"))
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("epoch") and "  loss" in line]
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert not any("val" in line for line in lines)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert {key for key in epoch_records(run)[0] if "/" in key} == {"train/loss", "train/accuracy"}
    assert [record["epoch"] for record in epoch_records(run)] == [0, 1]
    assert not any("probe_val" in key or key.startswith("val/") for record in records for key in record)
    summary = run.summary()
    assert summary["steps"] == 2 * STEPS
    assert summary["val"] == {"last": {"epoch": 1}, "best": {"epoch": 1}}
    assert summary["test"]["last"] == summary["test"]["best"]
    last, best = (load_checkpoint(path)["state_dict"] for path in (run.last, run.best))
    assert all(torch.equal(last[name], best[name]) for name in last)
    terminal.print_result(summary, 1.0, "there")
    terminal.print_trials([("seed=0", summary), ("seed=1", summary)])
    table = capsys.readouterr().out
    assert "last epoch" in table
    assert "by val " not in table
    assert evaluate([f"run={run.path}", "accelerator=cpu"]) == 0
    assert json.loads((run.path / "evaluation_test.json").read_text()) == summary["test"]
    with pytest.raises(UserError, match=r"has no samples in the split val.*val_fraction=0"):
        evaluate([f"run={run.path}", "split=val"])


@pytest.mark.parametrize("steps", [STEPS, STEPS + 4], ids=["between epochs", "within one"])
def test_a_stopped_run_resumes_bit_for_bit(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    words = [ALL, "trainer.max_epochs=3", "trainer.ema=0.9"]
    unbroken = train(tiny_config(*words))
    at_batch(monkeypatch, steps, lambda: os.kill(os.getpid(), signal.SIGTERM))
    folder = unbroken.path.parent / "stopped"
    with pytest.raises(Interrupted):
        train(tiny_config(*words, f"runs_dir={folder}"))
    monkeypatch.undo()
    run = RunFolder(next(folder.glob("2*")))
    assert load_checkpoint(run.last)["global_step"] == steps
    train(run.config(), run)
    assert_same_run(unbroken, run)


def test_a_stop_after_the_last_step_resumes_with_the_test(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [ALL, "trainer.ema=0.9"]
    unbroken = train(tiny_config(*words))
    folder = unbroken.path.parent / "stopped"

    def stop(*args: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(summary, "evaluate_weights", stop)
    with pytest.raises(Interrupted):
        train(tiny_config(*words, f"runs_dir={folder}"))
    monkeypatch.undo()
    run = RunFolder(next(folder.glob("2*")))
    train(run.config(), run)
    assert_same_run(unbroken, run)


def test_weights_that_blow_up_in_the_last_step_are_noticed(tiny_config: Compose) -> None:
    with pytest.raises(Diverged):
        train(tiny_config(ALL, "dataset.batch_size=100000", "trainer.max_epochs=1", "optimizer.lr=1e38"))


def test_data_without_a_test_split_are_refused_before_training(tiny_config: Compose) -> None:
    config = tiny_config("dataset.name=helpers.all_digits:UntestedDigits")
    with pytest.raises(UserError, match="has no samples in the split test"):
        train(config)
    assert not os.path.exists(config.runs_dir)
