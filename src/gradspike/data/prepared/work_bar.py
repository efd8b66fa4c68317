"""Progress of a long task on standard error: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class WorkBar:
    """A context manager. Call `advance(count)` when items are finished; `done` of `total` were finished before."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        self._first = done
        self._console = Console(stderr=True, markup=False, emoji=False)
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        self._started = self._told = time.perf_counter()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.percentage:>3.0f} %", markup=False),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self._console,
            )
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Report that `count` more items are finished."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
            return
        now = time.perf_counter()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            speed = (self.done - self._first) / (now - self._started)
            print(
                f"{self.title}: {self.done:,} of {self.total:,} ({100 * self.done / self.total:.0f} %), "
                f"{speed:,.0f} a second, {(self.total - self.done) / speed:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
