"""A trial under way as its runner sees it: is it alive, and how is it asked to stop."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import Protocol

from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.progress import Progress
from gradspike.tools.sweep.trial import end_rest, stop_file


class Running(Protocol):
    """What a runner needs of a trial under way."""

    detached: bool
    """Whether it goes on by itself when the runner is stopped."""

    def alive(self) -> bool:
        """Whether it is still under way."""

    def code(self) -> int | None:
        """Its exit code, or None where that is not known."""

    def stop(self, hard: bool = False) -> None:
        """Ask it to save and stop; `hard`: end it now."""


class Process:
    """A process that this runner has started."""

    detached = False

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def alive(self) -> bool:
        """Whether it runs; when it does not any more, whatever it has left behind is ended too."""
        if self._process.poll() is None:
            return True
        end_rest(self._process)
        return False

    def code(self) -> int | None:
        """Its exit code."""
        return self._process.poll()

    def stop(self, hard: bool = False) -> None:
        """SIGTERM, or SIGKILL for all its processes."""
        if hard:
            end_rest(self._process)
        elif self._process.poll() is None:
            self._process.terminate()


class Orphan:
    """A trial whose runner was killed, or that runs as a job: known only by its lock and its record."""

    def __init__(self, folder: SweepFolder, record: Record) -> None:
        self._folder = folder
        self._record = record
        self.detached = record.job is not None

    def alive(self) -> bool:
        """Whether its lock is held."""
        return self._folder.is_training(self._record.number)

    def code(self) -> int | None:
        """Nobody knows."""
        return None

    def stop(self, hard: bool = False) -> None:
        """SIGTERM or SIGKILL to its process where that is one of this machine, else a wish in its folder."""
        if not self.alive():
            return
        if self._record.job is not None or self._record.host != platform.node() or self._record.pid is None:
            stop_file(self._folder, self._record.number).touch()
        else:
            os.kill(self._record.pid, signal.SIGKILL if hard else signal.SIGTERM)


@dataclass
class Active:
    """A trial under way."""

    record: Record
    running: Running
    epochs: int
    progress: Progress | None = None
    stopping_since: float | None = None
    since: float = field(default_factory=time.monotonic)
