"""Tests a finished training and summarises its run."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning as L

from gradspike.config.schema import ExperimentConfig, short_name
from gradspike.data.datamodule import DataModule
from gradspike.runs.folder import RunFolder, Summary
from gradspike.training.callbacks.checkpoints import Checkpoints
from gradspike.training.callbacks.evaluation_record import EvaluationRecord, write_evaluations
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.evaluate import evaluate_weights
from gradspike.training.module import SpikingClassifier

log = logging.getLogger("gradspike")


def summarise(
    config: ExperimentConfig,
    run: RunFolder,
    trainer: L.Trainer,
    module: SpikingClassifier,
    data: DataModule,
    checkpoints: Checkpoints,
    record: EvaluationRecord,
) -> Summary:
    """Test the last weights and those with the best validation accuracy. Returns the content of summary.json.

    Writes confusion.json, layers.json and neurobench.json. Without a validation split, the last weights count as the
    best, and `val` contains only the epoch.
    """
    last_path, best_path = (Path(path) for path in trainer.strategy.broadcast((str(run.last), str(run.best))))

    def tested(checkpoint: Path) -> dict[str, float]:
        values = evaluate_weights(trainer, module, data, load_checkpoint(checkpoint)["state_dict"])
        if module.test_problem:
            log.error("Test of %s: %s. No test accuracy is reported.", checkpoint.name, module.test_problem)
        return values

    test, seen = {"last": tested(last_path)}, {"last": record.taken()}
    if checkpoints.best["epoch"] == checkpoints.last["epoch"]:
        test["best"], seen["best"] = dict(test["last"]), seen["last"]
    else:
        test["best"], seen["best"] = tested(best_path), record.taken()
    if trainer.is_global_zero:
        write_evaluations(run.path, seen)
    return {
        "method": config.method_label(),
        "dataset": config.dataset.name,
        "model": short_name(config.model.name),
        "seed": config.seed,
        "time_steps": config.time_steps,
        "epochs": config.trainer.max_epochs,
        "steps": trainer.global_step,
        "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "ema": config.trainer.ema,
        "val": {"last": _validation(checkpoints.last), "best": _validation(checkpoints.best)},
        "test": test,
    }


def _validation(metrics: dict[str, float]) -> dict[str, float]:
    """The number and validation metrics of an epoch, from all its metrics."""
    of_val = {key.removeprefix("val/"): value for key, value in metrics.items() if key.startswith("val/")}
    return {"epoch": metrics["epoch"], **of_val}
