"""Event recordings as plain arrays, on disk and in memory: one (`Recording`), or many in one table (`Events`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TONIC_DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])
"""The structured type of tonic's readers and transforms (tonic.io.events_struct), without importing tonic."""

FIELDS = ("t", "x", "y", "p", "offsets")


class BadRecordingError(ValueError):
    """A file of events cannot be used; the message is the reason, to be shown behind the file's path."""


@dataclass(frozen=True)
class Recording:
    """One recording, in the order of its file.

    t: int64 [E], microseconds. x, y: int16 [E], column and row, counted from the top left as in a picture. p: bool [E],
    True for ON (brighter). special: events of the file that are no change of brightness and were left out.
    """

    t: NDArray[np.int64]
    x: NDArray[np.int16]
    y: NDArray[np.int16]
    p: NDArray[np.bool_]
    special: int = 0

    def __len__(self) -> int:
        """The number of events."""
        return len(self.t)

    def __getitem__(self, part: slice) -> Recording:
        """Some neighbouring events."""
        return Recording(self.t[part], self.x[part], self.y[part], self.p[part])

    def check(self, width: int, height: int) -> None:
        """Raise BadRecordingError unless there are events, their times never go back and all lie on the sensor."""
        if not len(self):
            others = f" (but {self.special:,} that are no change of brightness)" if self.special else ""
            raise BadRecordingError(f"holds no events{others}")
        steps = np.diff(self.t)
        back = np.flatnonzero(steps < 0)
        if len(back):
            raise BadRecordingError(
                f"time goes backwards {len(back):,} times, first after event {back[0]:,} (by {-steps[back[0]]:,} us), "
                f"by {-steps[back].min():,} us at most; sort it if that is jitter, cut it there if it is a new start"
            )
        outside = np.flatnonzero((self.x < 0) | (self.x >= width) | (self.y < 0) | (self.y >= height))
        if len(outside):
            first = outside[0]
            raise BadRecordingError(
                f"{len(outside):,} events lie outside the sensor of {width}x{height} pixels, the first at column "
                f"{self.x[first]}, row {self.y[first]}"
            )


@dataclass(frozen=True)
class Events:
    """Recordings one after the other: recording i is offsets[i]:offsets[i + 1] of the columns, sorted by time.

    t: int32 [E], microseconds since the start of the recording. x, y: int16 [E], column and row. p: bool [E], True for
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
        """One recording as tonic's structured array [events of the recording]."""
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
    """The recordings of all `parts`, in order."""
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
