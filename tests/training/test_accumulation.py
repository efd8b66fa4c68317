"""Gradient accumulation: the same steps as in a plain loop; counts, saves and stops only between optimiser steps."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, Interrupted
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import load_checkpoint
from helpers.plain_loop import plain_training
from helpers.runs import assert_same_run, at_batch, epoch_records, train

Compose = Callable[..., ExperimentConfig]
STEPS = 1257 // 64  # of an epoch


@pytest.mark.parametrize("accumulate", [1, 4])
def test_steps_are_those_of_a_plain_loop(tiny_config: Compose, accumulate: int) -> None:
    words = ["trainer.max_epochs=1", "scheduler=constant", "trainer.gradient_clip=1", "loss=tet", "loss.cutmix=1"]
    config = tiny_config(*words, f"trainer.accumulate={accumulate}")
    run = train(config)
    steps = list(plain_training(config))
    assert len(steps) == STEPS
    trained = load_checkpoint(run.last)["state_dict"]
    for name, expected in steps[-1].items():
        torch.testing.assert_close(trained[f"model.{name}"], expected)


def test_counts_are_of_whole_steps(tiny_config: Compose) -> None:
    config = tiny_config("trainer.accumulate=2", "trainer.max_epochs=1", "probe.every_n_steps=5")
    run = train(config)
    assert run.summary()["steps"] == STEPS
    assert epoch_records(run)[0]["lr"] == pytest.approx(0, abs=1e-8)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    probed = [record["step"] for record in records if "probe/mean/firing_rate" in record]
    assert probed == [0, 5, 10, 15]
    seconds = json.loads(run.timing.read_text())
    # Both figures are rounded, to a millisecond and a tenth of a sample.
    assert seconds["samples_per_second"] * seconds["train_seconds"] == pytest.approx(STEPS * 64, rel=0.01)


def test_a_batch_that_cannot_be_cut_is_refused(tiny_config: Compose) -> None:
    with pytest.raises(ConfigError, match="must be a multiple of 3, because"):
        tiny_config("trainer.accumulate=3")


HARDEST = [
    *("trainer.accumulate=2", "trainer.ema=0.9", "loss=tet", "loss.mixup=0.5", "loss.cutmix=1", "method=ds_atgo"),
    *("loss.mix_probability=0.8", "+optimizer.groups={head.*:{lr:2},*.norm.*:{weight_decay:1e-3}}"),
]


def test_a_signal_within_a_step_stops_after_it_and_resumes_bit_for_bit(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = train(tiny_config(*HARDEST))
    # The first of the two micro-batches of the tenth step of the second epoch.
    at_batch(monkeypatch, 2 * (STEPS + 9) + 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    folder = unbroken.path.parent / "stopped"
    with pytest.raises(Interrupted):
        train(tiny_config(*HARDEST, f"runs_dir={folder}"))
    monkeypatch.undo()
    run = RunFolder(next(folder.glob("2*")))
    assert load_checkpoint(run.last)["global_step"] == STEPS + 10
    train(run.config(), run)
    assert_same_run(unbroken, run)
    first, second = (load_checkpoint(folder.last)["training_state"] for folder in (unbroken, run))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_crash_within_a_step_goes_on_from_the_newest_whole_one(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*HARDEST, "checkpoint.every_n_steps=7"]
    unbroken = train(tiny_config(*words))

    def fail() -> None:
        raise OSError("the disk is gone")

    at_batch(monkeypatch, 2 * (STEPS + 11), fail)
    folder = unbroken.path.parent / "crashed"
    with pytest.raises(OSError, match="the disk is gone"):
        train(tiny_config(*words, f"runs_dir={folder}"))
    monkeypatch.undo()
    run = RunFolder(next(Path(folder).glob("2*")))
    assert load_checkpoint(run.last)["global_step"] == 28
    train(run.config(), run)
    assert_same_run(unbroken, run)
