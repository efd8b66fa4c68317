"""One event recording in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class BadRecordingError(ValueError):
    """A file of events cannot be used. The message is the reason, shown after the file's path."""


@dataclass(frozen=True)
class Recording:
    """The events of one recording, in the order of its file.

    t: int64 [E], microseconds. x, y: int16 [E], column and row from the top left. p: bool [E], True for ON (brighter).
    special: number of events that are no change in brightness and were left out.
    """

    t: NDArray[np.int64]
    x: NDArray[np.int16]
    y: NDArray[np.int16]
    p: NDArray[np.bool_]
    special: int = 0

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, part: slice) -> Recording:
        return Recording(self.t[part], self.x[part], self.y[part], self.p[part])

    def check(self, width: int, height: int) -> None:
        """Raise BadRecordingError unless there are events, in order of time, all on the sensor."""
        if not len(self):
            others = f" (but {self.special:,} that are no change in brightness)" if self.special else ""
            raise BadRecordingError(f"holds no events{others}")
        steps = np.diff(self.t)
        back = np.flatnonzero(steps < 0)
        if len(back):
            raise BadRecordingError(
                f"time goes backwards {len(back):,} times, first after event {back[0]:,} (by {-steps[back[0]]:,} us), "
                f"by at most {-steps[back].min():,} us; sort the events if this is jitter, or split the file there if "
                "the clock was reset"
            )
        outside = np.flatnonzero((self.x < 0) | (self.x >= width) | (self.y < 0) | (self.y >= height))
        if len(outside):
            first = outside[0]
            raise BadRecordingError(
                f"{len(outside):,} events lie outside the sensor of {width}x{height} pixels, the first at column "
                f"{self.x[first]}, row {self.y[first]}"
            )
