"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import lightning as L

from gradspike.callbacks.checkpoints import Checkpoints
from gradspike.errors import UserError


class Interrupted(UserError):
    """The run was asked to stop; `exit_code` is 128 + the signal's number, as shells expect."""

    prefix = ""

    def __init__(self, signum: int, saved: bool) -> None:
        super().__init__(
            f"Stopped by {signal.Signals(signum).name}" + (" with its state saved." if saved else " at once.")
        )
        self.exit_code = 128 + signum


class StopOnSignal(L.Callback):
    """The first signal stops training after the step under way, with its state saved; a second one stops at once.

    Lightning itself would save in the middle of a step, and leaves SIGTERM with exit code 0. With several processes,
    whose steps would have to agree on where to stop, the first signal stops at once and the newest checkpoint is the
    one to go on from.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.received: int | None = None
        self._single = True
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen. Not before: Lightning installs its own handlers while it starts."""
        self._single = trainer.world_size == 1
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._handle)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if asked to, unless the epoch is as good as over: then its validation and its end come first."""
        if self.received is not None and batch_idx + 1 < trainer.num_training_batches:
            self.checkpoints.save_last(trainer)
            raise Interrupted(self.received, saved=True)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop between two epochs; the last one has been saved."""
        if self.received is not None:
            raise Interrupted(self.received, saved=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen no more; asked during the last epoch, stop before the test."""
        self._restore()
        if self.received is not None:
            raise Interrupted(self.received, saved=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._restore()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None or not self._single:
            raise Interrupted(signum, saved=False)
        self.received = signum
        print("\nStopping after this step and saving; once more stops at once.", flush=True)

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}
