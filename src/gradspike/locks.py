"""Locks on files, held against other processes until the file is closed; a process that dies gives its locks back."""

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
    """Lock an open file until it is closed, with `shared` together with other shared locks.

    Raises Taken unless it is to `wait`, and NoLocks where the file system (some NFS, Lustre and FUSE mounts) cannot.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _TAKEN:
            raise Taken from error
        raise NoLocks(os.strerror(error.errno) if error.errno else str(error)) from error


def lock_if_possible(file: IO[Any], risk: str, *, wait: bool = False) -> None:
    """Lock an open file, or warn of the `risk` of going on where the file system has no locks. Raises Taken."""
    try:
        lock(file, wait=wait)
    except NoLocks as error:
        log.warning("%s: this file system has no file locks (%s). %s", file.name, error, risk)
