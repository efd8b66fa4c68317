"""The runner's interface to a running trial: whether it is alive, and how to stop it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import Protocol

from typing_extensions import override

from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.progress import Progress
from gradspike.tools.sweep.trial import end_rest, stop_file


class Running(Protocol):
    """What a runner needs from a running trial."""

    detached: bool
    """Whether it continues when the runner is stopped."""

    def alive(self) -> bool:
        """Whether it is still running."""

    def code(self) -> int | None:
        """Its exit code, or None if unknown."""

    def stop(self, hard: bool = False) -> None:
        """Ask it to save and stop; with `hard`, kill it."""

    def cancelled(self) -> bool:
        """Whether a user ended it outside the runner (scancel)."""
        return False


class Process(Running):
    """A process that this runner started."""

    detached = False

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @override
    def alive(self) -> bool:
        if self._process.poll() is None:
            return True
        end_rest(self._process)  # loader workers and ranks that outlived it
        return False

    @override
    def code(self) -> int | None:
        return self._process.poll()

    @override
    def stop(self, hard: bool = False) -> None:
        if hard:
            end_rest(self._process)
        elif self._process.poll() is None:
            self._process.terminate()


class Orphan(Running):
    """A trial or job whose runner was killed; only its lock and its record are known."""

    def __init__(self, folder: SweepFolder, record: Record) -> None:
        self._folder = folder
        self._record = record
        self.detached = record.job is not None

    @override
    def alive(self) -> bool:
        return self._folder.is_training(self._record.number)

    @override
    def code(self) -> int | None:
        return None

    @override
    def stop(self, hard: bool = False) -> None:
        if not self.alive():
            return
        if self._record.job is not None or self._record.host != platform.node() or self._record.pid is None:
            stop_file(self._folder, self._record.number).touch()
        else:
            os.kill(self._record.pid, signal.SIGKILL if hard else signal.SIGTERM)


@dataclass
class Active:
    """A running trial."""

    record: Record
    running: Running
    epochs: int
    progress: Progress | None = None
    stopping_since: float | None = None
    since: float = field(default_factory=time.monotonic)
