"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import lightning as L
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from gradspike.errors import Interrupted
from gradspike.training.callbacks.checkpoints import Checkpoints
from gradspike.training.callbacks.steps import ends_step
from gradspike.training.processes import is_first_process

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SignalGuard:
    """`with SignalGuard():` makes Ctrl-C and SIGTERM raise Interrupted, wherever the program is.

    While `patient` is set the first signal is only noted in `received`, for whoever can stop at a better moment; a
    second one raises. Of several processes that train together the first one decides; the others ignore Ctrl-C, which a
    terminal sends to all of them, and wait to be ended.
    """

    def __init__(self) -> None:
        self.patient = False
        self.received: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> SignalGuard:
        # Python lets only the main thread listen; elsewhere (a notebook's worker) signals are not ours to handle.
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.getsignal(signum) for signum in SIGNALS}
            self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def listen(self) -> None:
        """Take the signals back from Lightning, which installs handlers of its own whenever a trainer starts."""
        for signum in self._previous:
            if is_first_process():
                signal.signal(signum, self._handle)
            else:
                signal.signal(signum, signal.SIG_IGN if signum is signal.SIGINT else signal.SIG_DFL)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None or not self.patient:
            raise Interrupted(signum)
        self.received = signum
        print("\nStopping after this step and saving; once more stops at once.", flush=True)


class KeepListening(L.Callback):
    """Takes the signals back when a test begins: Lightning has just installed its own handlers."""

    def __init__(self, guard: SignalGuard) -> None:
        self.guard = guard

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen."""
        self.guard.listen()


class StopOnSignal(KeepListening):
    """The first signal stops training after the step under way, with its state saved; a second one stops at once.

    Lightning itself would save in the middle of a step, and leaves SIGTERM with exit code 0. With several processes,
    whose steps would have to agree on where to stop, the first signal stops at once and the newest checkpoint is the
    one to go on from.
    """

    def __init__(self, guard: SignalGuard, checkpoints: Checkpoints) -> None:
        super().__init__(guard)
        self.checkpoints = checkpoints

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Be patient from here on."""
        self.guard.listen()
        self.guard.patient = trainer.world_size == 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if asked to, unless the epoch is as good as over: then its validation and its end come first."""
        within_epoch = batch_idx + 1 < trainer.num_training_batches
        if self.guard.received is not None and within_epoch and ends_step(trainer, batch_idx):
            self.checkpoints.save_last(trainer)
            raise Interrupted(self.guard.received, saved=True)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop between two epochs; the last one has been saved."""
        self._stop()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Asked during the last epoch, stop before the test."""
        self.guard.patient = False
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the other processes before they find this one gone and print pages about it."""
        self.guard.patient = False
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and trainer.is_global_zero:
            launcher.kill(signal.SIGKILL)

    def _stop(self) -> None:
        if self.guard.received is not None:
            raise Interrupted(self.guard.received, saved=True)
