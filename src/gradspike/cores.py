"""How many cores this process may use."""

from __future__ import annotations

import os

from gradspike.variables import variable, whole_number


def cores() -> int:
    """The number of cores this process is bound to, at most those of its srun task; all cores if unbound (macOS)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = whole_number("SLURM_CPUS_PER_TASK") if variable("SLURM_STEP_ID") is not None else None
    return min(bound, given or bound)
