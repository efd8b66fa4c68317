"""W&B and TensorBoard beside the files: what they hold, and that they cannot hurt a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradspike.config.schema import ExperimentConfig
from gradspike.loggers.jsonl import JsonLines
from gradspike.training import run as training
from helpers.wandb_records import final_summary, inspect

Compose = Callable[..., ExperimentConfig]


@pytest.fixture(autouse=True)
def _logged_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")


def epochs(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history records that close an epoch; others are the probe's alone."""
    return [record for record in records if record["type"] == "history" and "train/loss" in json.dumps(record)]


def test_wandb_offline_holds_everything(tiny_config: Compose) -> None:
    config = tiny_config("logger=wandb", "logger.project=test-project", "method=ds_atgo_at")
    run, summary = training.train(config, None, ["test"])
    records = inspect(run)
    start = next(record["run"] for record in records if record["type"] == "run")
    assert (start["project"], start["run_id"], start["run_group"]) == ("test-project", run.id, "ds_atgo_at")
    written = start["config"]["update"]
    plain = config.plain()
    assert {key: written[key] for key in plain} == plain
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    epochs = [entry for entry in history if "val/accuracy" in entry]
    recorded = [json.loads(line) for line in run.metrics.read_text().splitlines() if "val/accuracy" in line]
    assert [entry["val/accuracy"] for entry in epochs] == [entry["val/accuracy"] for entry in recorded]
    assert {"train/loss", "train/accuracy", "val/loss", "val/firing_rate", "lr", "epoch"} <= epochs[0].keys()
    final = final_summary(records)
    assert final["test/last/accuracy"] == summary["test"]["last"]["accuracy"]
    assert final["val/best/loss"] == summary["val"]["best"]["loss"]
    assert final["parameters"] == summary["parameters"]


def test_wandb_keeps_its_id_on_resume(tiny_config: Compose) -> None:
    run, _ = training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])
    run.set_status("interrupted")
    training.train(run.config(), run, ["test"])
    starts = [record["run"]["run_id"] for record in inspect(run) if record["type"] == "run"]
    assert set(starts) == {run.id}
    assert len(starts) == 2


def test_two_wandb_runs_in_one_process_are_two(tiny_config: Compose) -> None:
    runs = [training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])[0] for _ in range(2)]
    for run in runs:
        assert [record for record in inspect(run) if record["type"] == "run"]
        assert len(epochs(inspect(run))) == 1


@pytest.mark.parametrize("broken", ["init", "log"])
def test_wandb_that_breaks_does_not_stop_training(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    import wandb

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the service is gone")

    if broken == "init":
        monkeypatch.setattr(wandb, "init", fail)
    else:
        monkeypatch.setattr(wandb.Run, "log", fail)
    run, summary = training.train(tiny_config("logger=wandb"), None, ["test"])
    assert summary["test"]["last"]["accuracy"] > 0
    assert "the service is gone" in run.log.read_text()


def test_tensorboard_holds_the_curves(tiny_config: Compose) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is an optional extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = training.train(tiny_config("logger=tensorboard"), None, ["test"])
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    curve = [event.value for event in events.Scalars("val/accuracy")]
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    recorded = [record["val/accuracy"] for record in records if "val/accuracy" in record]
    assert curve == pytest.approx(recorded)


def test_json_lines_writes_valid_json_for_numbers_that_are_not_finite(tmp_path: Path) -> None:
    logger = JsonLines(tmp_path / "metrics.jsonl")
    logger.log_metrics({"a": float("nan"), "b": 1.5}, 3)
    size = logger.size()
    logger.log_metrics({"a": 2.0}, 4)
    logger.cut(size)
    assert [json.loads(line) for line in logger.file.read_text().splitlines()] == [{"step": 3, "a": None, "b": 1.5}]
