"""File locks between processes. A lock ends when its file is closed or its process dies."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from typing import IO, Any

log = logging.getLogger("gradspike")

_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class Taken(Exception):
    """Another process holds the lock."""


class NoLocks(Exception):
    """The file system has no locks; the message gives its reason."""


def lock(file: IO[Any], *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until it is closed. Several processes can hold a `shared` lock at the same time.

    With `wait`, waits for another process's lock; otherwise raises Taken. Raises NoLocks if the file system (some NFS,
    Lustre and FUSE mounts) has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _TAKEN:
            raise Taken from error
        raise NoLocks(os.strerror(error.errno) if error.errno else str(error)) from error


def lock_if_possible(file: IO[Any], risk: str, *, wait: bool = False) -> None:
    """Lock an open file; if the file system has no locks, warn of the `risk` and continue. Raises Taken."""
    try:
        lock(file, wait=wait)
    except NoLocks as error:
        log.warning("%s: this file system has no file locks (%s). %s", file.name, error, risk)
