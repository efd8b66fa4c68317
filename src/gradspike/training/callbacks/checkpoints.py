"""Saves last.ckpt and best.ckpt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from typing_extensions import override

from gradspike.loggers.jsonl import JsonLines
from gradspike.training.callbacks.steps import ends_step
from gradspike.training.module import Diverged, SpikingClassifier


class Checkpoints(L.Callback):
    """Saves `last.ckpt` after each epoch (and every n steps), and `best.ckpt` when validation accuracy rises.

    Among equally accurate epochs the one with the lowest validation loss is the best; without validation, the last one.
    Must be the last callback, so that the others have updated the state that it saves.
    """

    def __init__(self, folder: Path, every_n_steps: int | None, metrics: JsonLines) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.metrics = metrics
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # The last step of an epoch is saved by on_train_epoch_end.
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and ends_step(trainer, batch_idx) and batch_idx + 1 < trainer.num_training_batches:
            self.save_last(trainer, batch_idx)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SpikingClassifier)
        last_batch = int(trainer.num_training_batches) - 1
        pl_module.check_weights(last_batch)
        self.last = dict(pl_module.epoch_metrics)
        if not self.best or _quality(self.last) > _quality(self.best):
            self.best = self.last
            trainer.save_checkpoint(self.folder / "best.ckpt")
        self.save_last(trainer, last_batch)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save the state in which the loss became NaN or infinite as diverged.ckpt."""
        if isinstance(exception, Diverged) and trainer.world_size == 1:
            trainer.save_checkpoint(self.folder / "diverged.ckpt")

    def save_last(self, trainer: L.Trainer, batch_idx: int) -> None:
        """Save the state after a batch as last.ckpt. Raises Diverged instead if its weights are not finite."""
        assert isinstance(trainer.lightning_module, SpikingClassifier)
        trainer.lightning_module.check_weights(batch_idx)
        trainer.save_checkpoint(self.folder / "last.ckpt")

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record the length of metrics.jsonl, to which a resumed run cuts it."""
        if trainer.is_global_zero:  # only the first process has the file, and saves
            checkpoint["metrics_bytes"] = self.metrics.size_on_disk()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "last": self.last}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.last = state_dict["best"], state_dict["last"]


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """The number of complete epochs before a checkpoint, which differs from Lightning's `epoch`."""
    last = checkpoint["callbacks"][Checkpoints.__qualname__]["last"]
    return int(last["epoch"]) + 1 if last else 0


def _quality(metrics: dict[str, float]) -> tuple[float, float]:
    """Sort key: higher is better."""
    if "val/accuracy" not in metrics:
        return metrics["epoch"], 0.0
    return metrics["val/accuracy"], -metrics["val/loss"]
