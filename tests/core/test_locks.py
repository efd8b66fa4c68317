"""File locks: errors that mean a lock is held, and errors that mean the file system has none."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from gradspike.locks import NoLocks, Taken, lock, lock_if_possible


def failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*args: Any) -> None:
        raise OSError(number, "from the file system")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_is_held_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as first, path.open() as second:
        lock(first)
        for shared in (False, True):
            with pytest.raises(Taken):
                lock(second, shared=shared)
        first.close()
        lock(second)


def test_shared_locks_are_held_together(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as first, path.open() as second, path.open() as third:
        lock(first, shared=True)
        lock(second, shared=True)
        with pytest.raises(Taken):
            lock(third)


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES])
def test_only_these_mean_that_somebody_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failing(monkeypatch, number)
    with (tmp_path / "lock").open("w") as file, pytest.raises(Taken):
        lock_if_possible(file, "risk")


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.EIO, errno.EDEADLK]
)
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    failing(monkeypatch, number)
    with (tmp_path / "lock").open("w") as file:
        with pytest.raises(NoLocks):
            lock(file)
        lock_if_possible(file, "Start one only.")
    assert len(caplog.records) == 1
    assert "has no file locks" in caplog.text
    assert "Start one only." in caplog.text
