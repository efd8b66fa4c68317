"""The states of jobs, from squeue. Unlike sacct, which submitit asks, it needs no accounting in the cluster."""

from __future__ import annotations

import os
import subprocess
import time

SECONDS = 5.0
"""An answer is used for so long; squeue asks the controller that all users share."""
PATIENCE = 60.0
OVER = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)


class Queue:
    """The jobs of this user that Slurm knows: those that wait or run, and for some minutes those that have ended."""

    def __init__(self) -> None:
        self._states: dict[str, str] | None = None
        self._asked = float("-inf")

    def outdate(self) -> None:
        """Ask again at the next look, because jobs were submitted."""
        self._asked = float("-inf")
        self._states = None

    def has(self, job: str) -> bool:
        """Whether a job waits, runs or is ending. As long as Slurm does not answer, every job counts as running."""
        self._update()
        return self._states is None or self._states.get(job, "COMPLETED") not in OVER

    def state(self, job: str) -> str | None:
        """The state of a job, such as RUNNING; None if the queue does not list it."""
        self._update()
        return (self._states or {}).get(job)

    def _update(self) -> None:
        if time.monotonic() - self._asked < SECONDS:
            return
        command = ["squeue", "--me", "--states=all", "--array", "--noheader", "--format=%i %T"]
        plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}  # its filters
        try:
            answer = subprocess.run(
                command, env=plain, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError, UnicodeError):
            self._states = None
        else:
            self._states = dict(line.split() for line in answer.splitlines() if line.strip())
        self._asked = time.monotonic()
