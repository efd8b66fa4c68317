"""A sweep's folder.

    sweep.yaml            the sweep file as it was when it was last started
    sweep.json            the folder's id, the study's name and storage, what was typed
    study.db              the Optuna study, unless `storage` names another place
    trials/<n>/trial.json one trial: state, parameters, overrides, run, attempts (see `Record`)
    trials/<n>/log        everything its attempts printed
    runs/<run>/           the run folders, as train.py makes them
    runners/              a file for each runner that is alive

A lock is held by whoever has the file open and locked, and is gone with the process, however that ends. A trial's lock
is handed to the process that trains it: while it is held, that trial is under way, whether or not its runner still
lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import ValidationError

from gradspike.errors import ConfigError, UserError
from gradspike.registry import Strict
from gradspike.runs.files import check_writable, write_atomically

State = Literal["queued", "running", "stopping", "finished", "failed", "interrupted", "pruned"]


class Record(Strict):
    """What trial.json says of a trial; one that has never been taken has none.

    queued       taken, about to start or waiting on the cluster
    running      under way, or its runner was killed
    stopping     the pruner has asked it to stop
    finished     has its summary
    pruned       stopped by the pruner; its run can be resumed by hand
    failed       tried as often as allowed; tried again at the next start
    interrupted  stopped together with its runner; goes on at the next start
    """

    number: int
    state: State
    parameters: dict[str, Any]
    """The values of the swept parameters."""
    overrides: list[str]
    """What train.py was first started with."""
    run: str | None = None
    """The run's folder, relative to the sweep's."""
    value: float | None = None
    """The sweep's metric, once finished or pruned."""
    attempts: int = 0
    reason: str | None = None
    """Why it is not finished, in a sentence."""
    runner: str | None = None
    host: str | None = None
    pid: int | None = None
    """The process that trains it (host and pid), or did so last."""
    started: float = 0.0
    """When its last attempt began, seconds since 1970."""
    gpus: tuple[str, ...] = ()
    job: str | None = None
    """Its id on the cluster."""
    command: tuple[str, ...] = ()
    """The command of the last attempt."""


class SweepFolder:
    """Paths, locks and records of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.runs = self.path / "runs"
        self.about = self.path / "sweep.json"
        self.id = ""

    def create(self, study: str, storage: str) -> None:
        """Make the folder, or open it. Raises ConfigError where it belongs to a study in another place."""
        check_writable(str(self.path))
        for name in ("trials", "runs", "runners"):
            (self.path / name).mkdir(exist_ok=True)
        with self.locked("claim"):
            if not self.about.is_file():
                if any((self.path / "trials").iterdir()):
                    raise ConfigError(f"{self.path}: has trials but no sweep.json. Choose another folder=...")
                about = {"id": secrets.token_hex(8), "study": study, "storage": storage}
                write_atomically(self.about, json.dumps(about, indent=2) + "\n")
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            self.id = str(about["id"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.about}: is damaged: {error!r}. Choose another folder=...") from error
        if about["storage"] != storage:
            raise ConfigError(
                f"{self.path}: its study is in {about['storage']}, not in {storage}. Use the same storage=, or another "
                "folder=..."
            )

    def trial(self, number: int) -> Path:
        """A trial's own folder."""
        return self.path / "trials" / str(number)

    def log(self, number: int) -> Path:
        """What a trial has printed."""
        return self.trial(number) / "log"

    def record(self, number: int) -> Record | None:
        """A trial's record, or None where it has none."""
        file = self.trial(number) / "trial.json"
        try:
            return Record.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise UserError(f"{file}: is damaged ({error}). Remove it to start this trial anew.") from error

    def write(self, record: Record) -> Record:
        """Write a trial's record; returns it."""
        self.trial(record.number).mkdir(exist_ok=True)
        write_atomically(self.trial(record.number) / "trial.json", record.model_dump_json(indent=2) + "\n")
        return record

    def lock_trial(self, number: int) -> IO[str] | None:
        """The trial's lock, or None while somebody trains it."""
        self.trial(number).mkdir(exist_ok=True)
        return try_lock(self.trial(number) / ".lock")

    def is_training(self, number: int) -> bool:
        """Whether a process holds the trial's lock."""
        lock = self.lock_trial(number)
        if lock is not None:
            lock.close()
        return lock is None

    def register(self) -> tuple[str, IO[str]]:
        """A name for this runner, and the lock that says that it lives."""
        name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(2)}"
        lock = try_lock(self.path / "runners" / name)
        assert lock is not None
        return name, lock

    def unregister(self, name: str, lock: IO[str]) -> None:
        """This runner ends."""
        (self.path / "runners" / name).unlink(missing_ok=True)
        lock.close()

    def lives(self, runner: str | None) -> bool:
        """Whether a runner is alive; the files of dead ones are removed."""
        file = self.path / "runners" / str(runner)
        if runner is None or not file.is_file():
            return False
        lock = try_lock(file)
        if lock is None:
            return True
        file.unlink(missing_ok=True)
        lock.close()
        return False

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Wait for a lock of the whole folder, for a moment's work."""
        with (self.path / f".{name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def shown(path: Path) -> str:
    """A path as one would type it here: relative where it lies below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def try_lock(path: Path) -> IO[str] | None:
    """The open, locked file, or None while another process holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
