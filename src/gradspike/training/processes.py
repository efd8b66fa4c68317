"""Which of the processes that train together this one is."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


def is_first_process() -> bool:
    """Whether this process is the one that writes and speaks; known before the processes have found each other."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0
