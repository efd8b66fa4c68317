"""The moment of a training to strike at, recognised by the files that it writes."""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storm.session import Session

PHASES = ("start-up", "training", "validation", "saving", "test")
POLL = 0.003
SECONDS_TO_SAVE = 0.01
IN_CREATE = 0x100


class Records:
    """The lines that a session appends to metrics.jsonl. A resumed session cuts the file first."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read = self._size()

    def new(self) -> list[dict[str, Any]]:
        """Lines that were completed since the last call."""
        size = self._size()
        if size <= self._read:
            self._read = size
            return []
        with self.file.open("rb") as file:
            file.seek(self._read)
            text = file.read(size - self._read)
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def _size(self) -> int:
        try:
            return self.file.stat().st_size
        except OSError:
            return 0


class Created:
    """Names of the files that appear in a folder, reported by the kernel (inotify)."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_CLOEXEC)
        if self._handle < 0 or libc.inotify_add_watch(self._handle, os.fsencode(folder), IN_CREATE) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def wait(self, name_ends: str, seconds: float) -> bool:
        """Whether a file whose name ends so appeared within `seconds`."""
        if not select.select([self._handle], [], [], seconds)[0]:
            return False
        return name_ends.encode() in os.read(self._handle, 4096)

    def close(self) -> None:
        os.close(self._handle)


def is_step(record: dict[str, Any]) -> bool:
    return "epoch" not in record and not any(key.startswith("probe_val/") for key in record)


def is_last_step(record: dict[str, Any], steps: int) -> bool:
    """Whether validation follows. steps: those of an epoch."""
    return is_step(record) and (record["step"] + 1) % steps == 0


def is_last_epoch(record: dict[str, Any], epochs: int) -> bool:
    """Whether the test follows."""
    return record.get("epoch") == epochs - 1


def reached(phase: str, session: Session, folder: Callable[[], Path | None], plan: Plan, draw: random.Random) -> bool:
    """Wait for a random moment of the phase. False if the session ended before.

    folder: the run's folder, None until there is one.
    """
    run = folder()
    records = None if run is None else Records(run / "metrics.jsonl")
    wait = _Wait(session)
    if phase == "start-up":
        moment = time.monotonic() + draw.uniform(0.02, plan.seconds_to_start)
        while wait.goes_on() and time.monotonic() < moment:
            run = run or folder()
            records = records or (run and Records(run / "metrics.jsonl")) or None
            if records is not None and records.new():
                break
        return session.first.poll() is None
    while run is None and wait.goes_on():
        run = folder()
    if run is None:
        return False
    records = records or Records(run / "metrics.jsonl")
    if phase == "saving":
        return _at_save(run, wait, draw)
    wanted, delay = plan.moment(phase, draw)
    while wait.goes_on():
        if any(wanted(record) for record in records.new()):
            time.sleep(draw.uniform(0, delay))
            return session.first.poll() is None
    return False


class Plan:
    """What an unbroken training of these ranks showed: steps of an epoch, epochs, and seconds of its phases."""

    def __init__(self, steps: int, epochs: int, times: dict[str, float]) -> None:
        self.steps, self.epochs = steps, epochs
        self.seconds_to_start = times["start-up"]
        self._times = times

    def moment(self, phase: str, draw: random.Random) -> tuple[Callable[[dict[str, Any]], bool], float]:
        """Which record to wait for, and how long the phase lasts after it."""
        if phase == "test":
            return lambda record: is_last_epoch(record, self.epochs), self._times["test"]
        if phase == "validation":
            return lambda record: is_last_step(record, self.steps), self._times["validation"]
        left = draw.randrange(1, self.steps)

        def after_some(record: dict[str, Any]) -> bool:
            nonlocal left
            left -= is_step(record)
            return left <= 0

        return after_some, self._times["training"]


class _Wait:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._ends = time.monotonic() + 300

    def goes_on(self) -> bool:
        if time.monotonic() > self._ends:
            raise TimeoutError(f"the session did not get so far within 300 s:\n{self._session.output()}")
        time.sleep(POLL)
        return self._session.first.poll() is None


def _at_save(run: Path, wait: _Wait, draw: random.Random) -> bool:
    """A random moment of one of the next saves."""
    left = draw.randrange(1, 8)
    created = Created(run / "checkpoints")
    try:
        while wait.goes_on():
            left -= created.wait(".partial", 0.2)
            if left <= 0:
                time.sleep(draw.uniform(0, SECONDS_TO_SAVE))
                return True
        return False
    finally:
        created.close()
