"""Train a run in a test, stop it at a given step, and compare the files of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.config.schema import ExperimentConfig
from gradspike.runs.folder import RunFolder
from gradspike.training import run as training
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.module import SpikingClassifier


def train(config: ExperimentConfig, resumed: RunFolder | None = None) -> RunFolder:
    return training.train(config, resumed, ["test"])[0]


def weights(run: RunFolder, name: str = "last") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(run.checkpoints / f"{name}.ckpt")["state_dict"]
    return state


def epoch_records(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that close an epoch, without the probe's."""
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [record for record in records if "epoch" in record]


def assert_same_run(first: RunFolder, second: RunFolder) -> None:
    """Weights, metrics and summary equal bit for bit."""
    for name in ("last", "best"):
        one, other = weights(first, name), weights(second, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    for file in ("metrics.jsonl", "summary.json"):
        assert (first.path / file).read_bytes() == (second.path / file).read_bytes(), file


def at_batch(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Do something before the training step of the `number`-th micro-batch of the whole training (from 1)."""
    done = 0
    original = SpikingClassifier.training_step

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        nonlocal done
        done += 1
        if done == number:
            action()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpikingClassifier, "training_step", step)


def failed_run(monkeypatch: pytest.MonkeyPatch, config: ExperimentConfig, batch: int) -> RunFolder:
    """Train until an error before the `batch`-th micro-batch. `config.runs_dir` holds no other run."""

    def fail() -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        at_batch(patch, batch, fail)
        with pytest.raises(OSError, match="the disk is gone"):
            train(config)
    (run,) = Path(config.runs_dir).glob("2*")
    return RunFolder(run)
