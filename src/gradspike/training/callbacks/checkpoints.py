"""best.ckpt and last.ckpt: plain dicts that load with weights_only=True, each replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from gradspike.errors import UserError
from gradspike.loggers.jsonl import JsonLines
from gradspike.training.callbacks.steps import ends_step
from gradspike.training.module import Diverged, SpikingClassifier


class AtomicFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it; Lightning's own goes by the system's temporary folder."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        temporary = target.with_name(f".{target.name}.partial")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UserError(f"{target}: cannot be saved ({error.strerror}); the previous one is untouched.") from error


class Checkpoints(Checkpoint):
    """Saves `last.ckpt` at every epoch's end (and every n steps), `best.ckpt` at a new high of validation.

    Of equally accurate epochs the one with the lowest validation loss is kept; without a validation `best.ckpt` is the
    last epoch's. Lightning calls checkpoint callbacks
    after all others, so that what is saved is the state every other part has finished with.
    """

    def __init__(self, folder: Path, every_n_steps: int | None, metrics: JsonLines) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.metrics = metrics
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch; its last step is left to the epoch's end."""
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and ends_step(trainer, batch_idx) and batch_idx + 1 < trainer.num_training_batches:
            self.save_last(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch."""
        assert isinstance(pl_module, SpikingClassifier)
        self.last = dict(pl_module.epoch_metrics)
        if not self.best or _quality(self.last) > _quality(self.best):
            self.best = self.last
            trainer.save_checkpoint(self.folder / "best.ckpt")
        self.save_last(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep the state in which the loss stopped being a number, beside the good ones."""
        if isinstance(exception, Diverged) and trainer.world_size == 1:
            trainer.save_checkpoint(self.folder / "diverged.ckpt")

    def save_last(self, trainer: L.Trainer) -> None:
        """Save the present state as last.ckpt."""
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note how long metrics.jsonl was, so that a resumed run goes on from exactly there."""
        checkpoint["metrics_bytes"] = self.metrics.size()

    def state_dict(self) -> dict[str, Any]:
        """The numbers of the best and the last epoch."""
        return {"best": self.best, "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.best, self.last = state_dict["best"], state_dict["last"]


def _quality(metrics: dict[str, float]) -> tuple[float, float]:
    """What is higher for the better of two epochs."""
    if "val/accuracy" not in metrics:
        return metrics["epoch"], 0.0
    return metrics["val/accuracy"], -metrics["val/loss"]
