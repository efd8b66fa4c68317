"""The loop that starts, watches and finishes trials until none is left. It may be killed at any moment.

The state of each trial is in the study and in its record, never only in this process.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from gradspike.tools.sweep.claiming import elsewhere, in_order, take
from gradspike.tools.sweep.folder import Record
from gradspike.tools.sweep.launching import launch
from gradspike.tools.sweep.watching import look
from gradspike.tools.sweep.workload import Workload

POLL_SECONDS = 0.3
LOOK_SECONDS = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Runner:
    """A runner. Several may share a folder or a storage."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.signals: list[int] = []
        self.passed_on = 0
        self._looked = 0.0
        self._in_vain = False

    def run(self) -> int:
        """Run until no trial is left or a signal arrives. Returns the exit code."""
        self.work.name, alive = self.work.folder.register()
        try:
            with self._listening(), self.work.table:
                while not self._finished():
                    time.sleep(POLL_SECONDS)
        finally:
            self.work.folder.unregister(self.work.name, alive)
        self.work.table.closing(self.work.folder, self.work.study.trials(), elsewhere(self.work), self.signals)
        if self.signals:
            return 128 + self.signals[0]
        return 1 if self.work.given_up else 0

    def _finished(self) -> bool:
        """Do one iteration of the loop. Returns whether it was the last."""
        for number in list(self.work.active):
            look(self.work, number, stopping=bool(self.signals))
            if number not in self.work.active:
                self._looked = 0.0  # a worker is free
        if len(self.signals) > self.passed_on:
            self._pass_on()
        if not self.signals:
            self._take_more()
        self.work.table.show(self.work.trials, self.work.active, self.work.again, self.work.plan.workers)
        return not self.work.active and not self.work.again and (bool(self.signals) or self._in_vain)

    def _pass_on(self) -> None:
        """Pass a signal on to all trials: the first lets them save, the second stops them, the third kills them."""
        self.passed_on = len(self.signals)
        left = [active for active in self.work.active.values() if not active.running.detached]
        for number in [number for number, active in self.work.active.items() if active.running.detached]:
            del self.work.active[number]
        self.work.again.clear()
        self.work.table.stopping(len(left), self.passed_on)
        for active in left:
            active.running.stop(hard=self.passed_on > 2)

    def _take_more(self) -> None:
        """Start trials to retry, then waiting ones."""
        for number in list(self.work.again):
            if self.work.free() and not self.work.folder.is_training(number):
                launch(self.work, [self.work.again.pop(number)])
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self.work.look()
        if not self.work.free():
            return
        self._in_vain = True
        taken: list[Record] = []
        with self.work.folder.locked("claim"):
            for trial in in_order(self.work):
                if len(taken) >= self.work.free():
                    break
                record = take(self.work, trial)
                if record is not None:
                    self._in_vain = False
                    taken.append(record)
                    if self.work.cluster is None:
                        launch(self.work, [taken.pop()])
        launch(self.work, taken)
        if not self._in_vain:
            self._looked = 0.0  # the list of trials is outdated

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def note(signum: int, frame: FrameType | None) -> None:
            self.signals.append(signum)

        before: dict[signal.Signals, Any] = {signum: signal.signal(signum, note) for signum in SIGNALS}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
