"""Stops on Ctrl-C, SIGTERM and Slurm's signals, after finishing the step and saving."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

import lightning as L
import torch
from typing_extensions import override

from gradspike.errors import Interrupted, OutOfTime
from gradspike.training.agreement import Agreement, SharedAgreement
from gradspike.training.callbacks.checkpoints import Checkpoints
from gradspike.training.callbacks.steps import ends_step
from gradspike.training.place import ALONE, Place
from gradspike.training.unhandled_signals import UnhandledSignals
from gradspike.variables import variable


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a run. Slurm sends SIGUSR1 or SIGUSR2 before a time limit if asked to.

    A closed terminal sends SIGHUP, which nohup makes a program ignore.
    """
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    asked = (signal.SIGUSR1, signal.SIGUSR2) if variable("SLURM_JOB_ID") is not None else ()
    return (signal.SIGINT, signal.SIGTERM, *hangup, *asked)


TIME_IS_UP = 1000
"""In the place of a signal's number: the hours of `trainer.max_hours` are over."""


class SignalGuard:
    """`with SignalGuard():` makes Ctrl-C, SIGTERM and Slurm's signals raise Interrupted at any point of the program.

    Between `wait` and `end_wait` the first signal is only recorded in `received`, so that the training can stop at a
    better moment; the second one raises. Of several processes, those after the first ignore Ctrl-C and SIGHUP, which a
    terminal sends to all of them, once they train together; while they do not wait, any other signal ends them.

    on_end: called if a process of several has to end although its handler cannot run.
    """

    def __init__(self, place: Place = ALONE, max_hours: float | None = None) -> None:
        self.place = place
        self.max_hours = max_hours
        self._started = time.monotonic()
        self.patient = False
        self.received: int | None = None
        """The signal to stop for, which may have come to another process."""
        self._signalled = False
        self._previous: dict[signal.Signals, Any] = {}
        self.on_end: Callable[[Interrupted], None] = lambda error: None
        self._unhandled: UnhandledSignals | None = None

    def __enter__(self) -> SignalGuard:
        # Python delivers signals to the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.getsignal(signum) for signum in stop_signals()}
            self.listen()
            if self.place.world_size > 1:
                self._unhandled = UnhandledSignals(
                    self._previous, lambda: not self.patient, lambda error: self.on_end(error)
                )
                self._unhandled.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}
        if self._unhandled is not None:
            self._unhandled.close()

    def wait(self) -> None:
        """Record the first signal only, from now on."""
        self.patient = True
        self.listen()

    def end_wait(self) -> None:
        """Stop at once from now on."""
        self.patient = False
        self.listen()

    def listen(self) -> None:
        """Install the handlers. Call it again after a trainer starts, because Lightning then installs its own."""
        for signum in self._previous:
            if self.place.rank == 0:
                signal.signal(signum, self._handle)
            else:
                # A process of srun or torchrun may wait for a first process that never starts.
                together = self.place.started_by_us or torch.distributed.is_initialized()
                ignored = signum in (signal.SIGINT, signal.SIGHUP) and together
                otherwise = self._handle if self.patient else signal.SIG_DFL
                signal.signal(signum, signal.SIG_IGN if ignored else otherwise)

    def look_at_clock(self) -> None:
        """Take the end of the hours for a signal, if there has been none."""
        if self.max_hours is not None and time.monotonic() - self._started > 3600 * self.max_hours:
            self.received = self.received or TIME_IS_UP

    def interruption(self) -> Interrupted:
        """What to raise after the state was saved for the signal in `received`."""
        assert self.received is not None
        if self.received == TIME_IS_UP:
            assert self.max_hours is not None
            return OutOfTime(self.max_hours)
        return Interrupted(self.received, saved=True)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._unhandled is not None:
            self._unhandled.handled += 1
        if self._signalled or not self.patient:
            raise Interrupted(signum)
        self._signalled = True
        self.received = self.received or signum
        if self.place.rank == 0:
            print("\nStopping after this step and saving. A second signal stops at once.", flush=True)


class KeepListening(L.Callback):
    """Installs the handlers again when a test starts, because Lightning has just installed its own."""

    def __init__(self, guard: SignalGuard) -> None:
        self.guard = guard

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.guard.listen()


class StopOnSignal(KeepListening):
    """The first signal saves and stops after the current step; the second one stops at once.

    Several processes agree on a step. Lightning itself would save in the middle of a step, and exit with code 0 on
    SIGTERM.
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
        if not ends_step(trainer, batch_idx):
            return
        if trainer.is_global_zero:
            self.guard.look_at_clock()
        if batch_idx + 1 == trainer.num_training_batches:
            return  # the validation comes first
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
        self.guard.end_wait()

    def _stops(self, ask: Callable[[], bool]) -> bool:
        try:
            return ask()
        except RuntimeError:  # another process is gone
            if self.guard.received in (None, TIME_IS_UP):
                raise
            raise Interrupted(self.guard.received) from None

    def _stop(self) -> NoReturn:
        raise self.guard.interruption()
