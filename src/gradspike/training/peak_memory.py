"""The most memory this process has held, as Linux counts it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_PROCESS = Path("/proc/self")
_KIB = 1 if sys.platform == "darwin" else 1024  # what getrusage counts in


def reset_peak() -> None:
    """Let the peak start at what is held now, where the system lets us: a second training of a process is to have its
    own.
    """
    try:
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_mb() -> float:
    """Peak resident memory in MiB since `reset_peak`, or since the process started where it could not be reset."""
    try:
        lines = (_PROCESS / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / 2**20
