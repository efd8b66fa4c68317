"""Runs of transformers, networks of currents and recurrent layers: stopped, resumed and probed as an unbroken run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.runs.folder import RunFolder
from gradspike.training.module import SpikingClassifier
from helpers.networks import SMALL
from helpers.runs import assert_same_run, train

STEPS = 2  # of an epoch


@pytest.mark.parametrize("model", ["ms_resnet18", "spikformer", "sdt", "qkformer", "spiking_rnn"])
def test_a_crashed_run_resumes_bit_for_bit(
    model: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second epoch, from a step within it; the records of the probe are the same too."""

    def config(folder: str) -> ExperimentConfig:
        words = ["dataset=digits", "dataset.batch_size=500", "time_steps=2", "recipe=none", "engine=eager"]
        words += ["trainer.max_epochs=2", "trainer.progress=none", "trainer.accelerator=cpu"]
        words += ["probe.every_n_steps=1", "checkpoint.every_n_steps=1"]
        words += [f"data_dir={data_dir}", f"runs_dir={tmp_path / folder}"]
        return load_config([*words, f"model={model}", *SMALL[model]])

    unbroken = train(config("unbroken"))
    original = SpikingClassifier.training_step

    def failing(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == STEPS + 1:
            raise OSError("the disk is gone")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpikingClassifier, "training_step", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        train(config("crashed"))
    monkeypatch.undo()
    run = RunFolder(next((tmp_path / "crashed").glob("2*")))
    train(run.config(), run)
    assert_same_run(unbroken, run)
    records = unbroken.metrics.read_text()
    assert "probe" in records
