"""Clock checks for recordings: events out of order, and gaps caused by clock jumps."""

from __future__ import annotations

from typing import Literal

import numpy as np

from gradspike.data.events.recording import JITTER_US, BadRecordingError, Recording, is_jitter
from gradspike.shown import counted

FEWEST = 24
"""With fewer events a gap proves nothing: 1 in 15 random sets of 10 times has a gap longer than the rest."""
JUMPS = 3
"""Number of clock jumps to look for in one recording."""


def in_order(recording: Recording, on_disorder: Literal["error", "sort"]) -> tuple[Recording, int]:
    """The recording sorted by time, and the number of events that were out of order. Raises BadRecordingError.

    Only jitter is sorted (see `is_jitter`). Sorting across a clock reset would merge two recordings.
    """
    t = recording.t
    if on_disorder == "error" or len(t) < 2 or (t[1:] >= t[:-1]).all():
        recording.check_order()
        return recording, 0
    late = np.maximum.accumulate(t) - t
    span = int(t.max()) - int(t.min())
    if not is_jitter(int(late.max()), span):
        event = int(np.argmax(late > min(JITTER_US, span // 2)))
        raise BadRecordingError(
            f"time goes backwards by {late[event]:,} us at event {event:,}, too much for jitter (at most "
            f"{JITTER_US:,} us, and half of the recording): the clock was reset or wrapped, so split the file there"
        )
    return recording[np.argsort(t, kind="stable")], int(np.count_nonzero(late))


def jump(recording: Recording) -> str | None:
    """Describe a gap that is longer than the rest of the recording, or return None.

    If there are several clock jumps, each must be longer than the recording without them.
    """
    if len(recording) < FEWEST:
        return None
    steps = np.diff(recording.t)
    largest = np.argsort(steps)[::-1][:JUMPS]
    rest = int(recording.t[-1]) - int(recording.t[0])
    for event in largest.tolist():
        gap = int(steps[event])
        rest -= gap
        if gap > rest:
            return (
                f"no event for {duration(gap)} after event {event:,}, longer than the rest of the recording "
                f"({duration(rest)}, {counted(len(recording), 'event')})"
            )
    return None


def duration(microseconds: int) -> str:
    """Format a duration with a suitable unit: "120 us", "3.2 ms", "12.0 s", "5.1 h", "19,000 days"."""
    for limit, unit, size in ((1e3, "us", 1.0), (1e6, "ms", 1e3), (6e9, "s", 1e6), (1.7e11, "h", 3.6e9)):
        if microseconds < limit:
            return f"{microseconds:,} us" if unit == "us" else f"{microseconds / size:,.1f} {unit}"
    return f"{microseconds / 8.64e10:,.0f} days"
