"""The peak memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from gradspike.training.kept_memory import release_kept_memory

_PROCESS = Path("/proc/self")
_KIB = 1 if sys.platform == "darwin" else 1024  # the unit of getrusage


def reset_peak() -> None:
    """Reset the peak to the current memory, for a second training in the same process. Works only on Linux."""
    release_kept_memory()
    try:
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_mb() -> float:
    """Peak resident memory in MiB since `reset_peak`, or since the process started if it could not be reset."""
    try:
        lines = (_PROCESS / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / 2**20
