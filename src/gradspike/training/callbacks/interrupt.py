"""Ctrl-C, SIGTERM and Slurm's signals: finish the step, save, and stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from typing_extensions import override

from gradspike.errors import Interrupted
from gradspike.training.agreement import Agreement, SharedAgreement
from gradspike.training.callbacks.checkpoints import Checkpoints
from gradspike.training.callbacks.steps import ends_step
from gradspike.training.place import ALONE, Place
from gradspike.variables import variable


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a run. Slurm sends SIGUSR1 or SIGUSR2 before a time limit if asked to."""
    asked = (signal.SIGUSR1, signal.SIGUSR2) if variable("SLURM_JOB_ID") is not None else ()
    return (signal.SIGINT, signal.SIGTERM, *asked)


class SignalGuard:
    """`with SignalGuard():` makes Ctrl-C, SIGTERM and Slurm's signals raise Interrupted at any point of the program.

    Between `wait` and `end_wait` the first signal is only recorded in `received`, so that the training can stop at a
    better moment; the second one raises. Of several processes, those after the first ignore Ctrl-C, which a terminal
    sends to all of them, once they train together; while they do not wait, any other signal ends them.
    """

    def __init__(self, place: Place = ALONE) -> None:
        self.place = place
        self.patient = False
        self.received: int | None = None
        """The signal to stop for, which may have come to another process."""
        self._signalled = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> SignalGuard:
        # Python delivers signals to the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.getsignal(signum) for signum in stop_signals()}
            self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def wait(self) -> None:
        """From now on record the first signal only."""
        self.patient = True
        self.listen()

    def end_wait(self) -> None:
        """Stop at once from now on."""
        self.patient = False
        self.listen()

    def listen(self) -> None:
        """Install the handlers; again after Lightning has installed its own, as it does whenever a trainer starts."""
        for signum in self._previous:
            if self.place.rank == 0:
                signal.signal(signum, self._handle)
            else:
                # A process of srun or torchrun may wait for a first one that never comes.
                together = self.place.started_by_us or torch.distributed.is_initialized()
                ignored = signum is signal.SIGINT and together
                otherwise = self._handle if self.patient else signal.SIG_DFL
                signal.signal(signum, signal.SIG_IGN if ignored else otherwise)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._signalled or not self.patient:
            raise Interrupted(signum)
        self._signalled = True
        self.received = self.received or signum
        if self.place.rank == 0:
            print("\nStopping after this step and saving. A second signal stops at once.", flush=True)


class KeepListening(L.Callback):
    """Installs the handlers again when a test begins, because Lightning has just installed its own."""

    def __init__(self, guard: SignalGuard) -> None:
        self.guard = guard

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.guard.listen()


class StopOnSignal(KeepListening):
    """The first signal saves and stops after the current step; the second one stops at once.

    Several processes agree on a step. Lightning would save in the middle of a step, and exits with code 0 on SIGTERM.
    """

    def __init__(self, guard: SignalGuard, checkpoints: Checkpoints) -> None:
        super().__init__(guard)
        self.checkpoints = checkpoints
        self.agreement = Agreement(guard)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            self.agreement = SharedAgreement(self.guard)
        self.guard.wait()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # After the last step of an epoch its validation comes first.
        if not ends_step(trainer, batch_idx) or batch_idx + 1 == trainer.num_training_batches:
            return
        if self._stops(self.agreement.stops_here):
            self.checkpoints.save_last(trainer, batch_idx)
            self._stop()

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._stops(self.agreement.stops_here):
            self._stop()

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stops = self._stops(self.agreement.stops_at_end)
        self.guard.end_wait()
        if stops:
            self._stop()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the other processes before they print tracebacks about the loss of this one."""
        self.guard.end_wait()
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and trainer.is_global_zero:
            launcher.kill(signal.SIGKILL)

    def _stops(self, ask: Callable[[], bool]) -> bool:
        try:
            return ask()
        except RuntimeError:  # another process is gone
            if self.guard.received is None:
                raise
            raise Interrupted(self.guard.received) from None

    def _stop(self) -> NoReturn:
        assert self.guard.received is not None
        raise Interrupted(self.guard.received, saved=True)
