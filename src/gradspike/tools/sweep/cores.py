"""How many cores this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """The cores this process is bound to; all of the machine's on a system that cannot bind it (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
