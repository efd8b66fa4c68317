"""Locks on files, for folders that one process at a time may write to.

A lock lasts until its file is closed or its process ends, however it ends. Some network file systems have no locks:
that is reported as such, never taken for a lock of another process.
"""

from __future__ import annotations

import errno
import fcntl
from typing import IO, Any


class NoLocks(Exception):
    """The file system does not support locks. The message is the system's reason."""


def lock(file: IO[Any], *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file. Returns False if another process holds it; with `wait`, waits for that process instead.

    Several processes may hold a `shared` lock together. Raises NoLocks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            return False
        raise NoLocks(error.strerror or str(error)) from error
    return True
