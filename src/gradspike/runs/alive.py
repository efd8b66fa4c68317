"""The state of an unfinished run or trial. After a SIGKILL, its record says `running`; its lock shows that it is not.

Imports nothing heavy.
"""

from __future__ import annotations

import platform
from pathlib import Path

from gradspike.locks import NoLocks, Taken, lock

LOCK = ".lock"
"""The name of the file that the process that trains a run or a trial of a sweep keeps locked."""


def running_or_killed(folder: Path, host: str | None) -> str:
    """The state of a run or trial whose record says `running`. host: where it ran; None if unknown."""
    try:
        with (folder / LOCK).open(encoding="utf-8") as file:
            lock(file, shared=True)
    except Taken:
        return "still running"
    except FileNotFoundError:
        pass
    except (NoLocks, OSError):
        return "not finished: it is still running, or was killed"
    if host not in (None, platform.node()):
        return f"not finished: it was killed, or this is a copy and it is still running on {host}"
    return "not finished: it was killed"
