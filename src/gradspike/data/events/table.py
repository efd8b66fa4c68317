"""Many event recordings in one table, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TONIC_DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])
"""The structured dtype of tonic's readers and transforms (tonic.io.events_struct)."""

FIELDS = ("t", "x", "y", "p", "offsets")


@dataclass(frozen=True)
class Events:
    """Concatenated recordings, each sorted by time: recording i is offsets[i]:offsets[i + 1] of the columns.

    t: int32 [E], microseconds from the start of the recording. x, y: int16 [E], column and row. p: bool [E], True for
    ON (brighter). offsets: int64 [recordings + 1].
    """

    t: NDArray[np.int32]
    x: NDArray[np.int16]
    y: NDArray[np.int16]
    p: NDArray[np.bool_]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of recordings."""
        return len(self.offsets) - 1

    def recording(self, index: int) -> NDArray[Any]:
        """One recording as tonic's structured array [events]."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        events = np.empty(part.stop - part.start, dtype=TONIC_DTYPE)
        for field in ("t", "x", "y", "p"):
            events[field] = getattr(self, field)[part]
        return events

    def save(self, folder: Path) -> None:
        """Write each column as a .npy file."""
        for field in FIELDS:
            np.save(folder / f"{field}.npy", getattr(self, field))


def concatenate(parts: Sequence[Events]) -> Events:
    """Concatenate the recordings of all `parts`, in order."""
    ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    return Events(
        t=np.concatenate([part.t for part in parts]),
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        p=np.concatenate([part.p for part in parts]),
        offsets=np.concatenate(
            [[0], *(part.offsets[1:] + start for part, start in zip(parts, ends[:-1], strict=True))]
        ).astype(np.int64),
    )
