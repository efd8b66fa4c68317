"""A sweep's folder.

    sweep.yaml            the sweep file as of the last start
    sweep.json            the folder's id, the study's name and storage
    study.db              the Optuna study, unless `storage` names another place
    trials/<n>/trial.json one trial: state, parameters, overrides, run, attempts (see `Record`)
    trials/<n>/log        the output of all its attempts
    runs/<run>/           the run folders
    runners/              one file for each live runner

A lock ends with the process that holds it, even if that is killed. A trial's lock is passed on to its training process:
while it is held, the trial is running, even if its runner is dead.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import ValidationError

from gradspike.errors import ConfigError, UserError
from gradspike.json_text import to_json
from gradspike.locks import NoLocks, Taken, lock
from gradspike.registry import Strict
from gradspike.runs.files import check_writable, write_atomically
from gradspike.shown import expanded
from gradspike.tools.sweep.run_index import RunIndex

State = Literal["queued", "running", "stopping", "finished", "failed", "interrupted", "pruned"]


class Record(Strict):
    """The content of trial.json. A trial that was never started has none.

    queued       about to start, or waiting in the cluster's queue
    running      training, or its runner was killed
    stopping     asked to stop by the pruner
    finished     done, with a summary
    pruned       stopped by the pruner; its run can be resumed by hand
    failed       failed in every allowed attempt; retried at the next start
    interrupted  stopped with its runner; resumed at the next start
    """

    number: int
    state: State
    parameters: dict[str, Any]
    """The values of the swept parameters."""
    overrides: list[str]
    """The overrides of the first attempt."""
    run: str | None = None
    """The run folder, relative to the sweep's folder."""
    run_id: str | None = None
    """The run's id, which stays the same when its folder is renamed."""
    value: float | None = None
    """The sweep's metric if finished or pruned."""
    second: float | None = None
    """The second objective if finished."""
    attempts: int = 0
    reason: str | None = None
    """Why it is not finished."""
    runner: str | None = None
    host: str | None = None
    pid: int | None = None
    """The process id of the last attempt (on `host`)."""
    started: float = 0.0
    """Start of the last attempt, in seconds since 1970."""
    gpus: tuple[str, ...] = ()
    job: str | None = None
    """The job id on the cluster."""
    command: tuple[str, ...] = ()
    """The command of the last attempt."""

    @property
    def values(self) -> tuple[float, ...]:
        """The known objectives."""
        return tuple(value for value in (self.value, self.second) if value is not None)


class SweepFolder:
    """Paths, locks and records of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = expanded(path).absolute()
        self.runs = self.path / "runs"
        self.index = RunIndex(self.runs)
        self.about = self.path / "sweep.json"
        self.id = ""
        self.study = ""
        """The name of the study, which does not change when the folder is renamed."""

    def create(self, study: str, storage: str) -> None:
        """Create or open the folder. Raises ConfigError if its study is elsewhere, UserError if it cannot be used."""
        check_writable(str(self.path))
        self._check_locks()
        for name in ("trials", "runs", "runners"):
            (self.path / name).mkdir(exist_ok=True)
        with self.locked("claim"):
            if not self.about.is_file():
                if any((self.path / "trials").iterdir()):
                    raise ConfigError(f"{self.path}: has trials but no sweep.json. Choose another folder=...")
                about = {"id": secrets.token_hex(8), "study": study, "storage": storage}
                write_atomically(self.about, to_json(about, indent=2) + "\n")
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            self.id, self.study = str(about["id"]), str(about["study"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.about}: is damaged: {error!r}. Choose another folder=...") from error
        if about["storage"] != storage:
            raise ConfigError(
                f"{self.path}: its study is in {about['storage']}, not in {storage}. Use the same storage=, or another "
                "folder=..."
            )

    def trial(self, number: int) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / str(number)

    def log(self, number: int) -> Path:
        """The output of a trial."""
        return self.trial(number) / "log"

    def record(self, number: int) -> Record | None:
        """The record of a trial, or None."""
        file = self.trial(number) / "trial.json"
        try:
            return Record.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise UserError(f"{file}: is damaged ({error}). Delete it to start this trial from scratch.") from error

    def write(self, record: Record) -> Record:
        """Write a trial's record. Returns it."""
        self.trial(record.number).mkdir(exist_ok=True)
        write_atomically(self.trial(record.number) / "trial.json", record.model_dump_json(indent=2) + "\n")
        return record

    def lock_trial(self, number: int) -> IO[str] | None:
        """Lock a trial; None if a process is training it."""
        self.trial(number).mkdir(exist_ok=True)
        return try_lock(self.trial(number) / ".lock")

    def is_training(self, number: int) -> bool:
        """Whether a process holds the trial's lock."""
        free = self.lock_trial(number)
        if free is not None:
            free.close()
        return free is None

    def register(self) -> tuple[str, IO[str]]:
        """Return a name for this runner and the lock that it holds while it is alive."""
        name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(2)}"
        alive = try_lock(self.path / "runners" / name)
        assert alive is not None
        return name, alive

    def unregister(self, name: str, alive: IO[str]) -> None:
        """Remove this runner."""
        (self.path / "runners" / name).unlink(missing_ok=True)
        alive.close()

    def lives(self, runner: str | None) -> bool:
        """Whether a runner is alive. Removes the file of a dead one."""
        file = self.path / "runners" / str(runner)
        if runner is None or not file.is_file():
            return False
        free = try_lock(file)
        if free is None:
            return True
        file.unlink(missing_ok=True)
        free.close()
        return False

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock of the whole folder for a moment's work; waits for it."""
        with (self.path / f".{name}.lock").open("a", encoding="utf-8") as file:
            lock(file, wait=True)
            yield

    def _check_locks(self) -> None:
        """Raise UserError if the file system has no locks: two runners would train the same trial."""
        try:
            with tempfile.TemporaryFile(dir=self.path) as file:
                lock(file)
        except NoLocks as error:
            with suppress(OSError):  # unless something is in it
                self.path.rmdir()
            raise UserError(
                f"{self.path}: a sweep needs file locks, which this file system does not support ({error}). Choose "
                "another with folder=..."
            ) from error


def try_lock(path: Path) -> IO[str] | None:
    """The open, locked file, or None if another process holds it."""
    file = path.open("a", encoding="utf-8")
    try:
        lock(file)
    except Taken:
        file.close()
        return None
    return file
