"""One event recording in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradspike.shown import counted

MAX_LEFT_OUT = 0.05
"""Default value of dataset.max_left_out."""


class BadRecordingError(ValueError):
    """An event file cannot be used. The message states the reason and is shown after the file's path."""


@dataclass(frozen=True)
class Recording:
    """The events of one recording, in file order.

    t: int64 [E], microseconds. x, y: int16 [E], column and row from the top left. p: bool [E], True for ON (brighter).
    special: number of other items in the file. left_out: how many of those are unusable events or indistinguishable
    from events; why: what they are. sensor: (width, height), if given in the file.
    """

    t: NDArray[np.int64]
    x: NDArray[np.int16]
    y: NDArray[np.int16]
    p: NDArray[np.bool_]
    special: int = 0
    left_out: int = 0
    why: str = ""
    sensor: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, part: slice | NDArray[np.intp]) -> Recording:
        """The same recording with a subset of its events."""
        return replace(self, t=self.t[part], x=self.x[part], y=self.y[part], p=self.p[part])

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height of the smallest sensor that contains all events, from the top left."""
        return (int(self.x.max()) + 1, int(self.y.max()) + 1) if len(self) else (0, 0)

    def check(self, width: int, height: int, max_left_out: float = MAX_LEFT_OUT) -> None:
        """Raise BadRecordingError if too many events were left out, or any is out of order or outside the sensor."""
        self.check_left_out(max_left_out)
        self.check_order()
        self.check_place(width, height)

    def check_left_out(self, most: float) -> None:
        """Raise BadRecordingError if there are no events, or if the fraction left out exceeds `most`."""
        if not len(self):
            others = f" (except {self.special:,} that do not mark a change in brightness)" if self.special else ""
            raise BadRecordingError(f"contains no events{others}")
        total = len(self) + self.left_out
        if self.left_out > most * total:
            raise BadRecordingError(
                f"{self.left_out:,} of its {counted(total, 'event')} ({percent(self.left_out / total)}) would be left "
                f"out: {self.why}. Check the sensor and the format, or raise dataset.max_left_out (it is {most:g})"
            )

    def check_order(self) -> None:
        """Raise BadRecordingError if time goes backwards."""
        steps = np.diff(self.t)
        back = np.flatnonzero(steps < 0)
        if len(back):
            largest = int(-steps[back].min())
            times = counted(len(back), "time")
            raise BadRecordingError(
                f"time goes backwards {times}, first after event {back[0]:,} (by {-steps[back[0]]:,} us), "
                f"by at most {largest:,} us; {_remedy(largest, int(self.t.max()) - int(self.t.min()))}"
            )

    def check_place(self, width: int, height: int) -> None:
        """Raise BadRecordingError if an event is outside the sensor, or the file states a smaller sensor."""
        outside = np.flatnonzero((self.x < 0) | (self.x >= width) | (self.y < 0) | (self.y >= height))
        if len(outside):
            first = outside[0]
            columns, rows = self.sensor or self.extent
            raise BadRecordingError(
                f"{counted(len(outside), 'event')} outside the sensor of {width}x{height} pixels, the first at column "
                f"{self.x[first]}, row {self.y[first]}; "
                + (f"its header gives a sensor of {columns}x{rows}" if self.sensor else f"they need {columns}x{rows}")
            )
        if self.sensor and (self.sensor[0] < width or self.sensor[1] < height):
            columns, rows = self.sensor
            raise BadRecordingError(
                f"its header gives a sensor of {columns}x{rows} pixels, smaller than the expected {width}x{height}"
            )


def is_jitter(back_us: int, span_us: int) -> bool:
    """Whether a clock that steps back by up to `back_us` in a recording of `span_us` microseconds is only inexact.

    A step back over most of the recording is a clock that wrapped or was reset, however short it is.
    """
    return back_us <= JITTER_US and 2 * back_us <= span_us


def _remedy(back_us: int, span_us: int) -> str:
    """How to fix a clock that steps back by up to `back_us` in a recording of `span_us` microseconds."""
    if is_jitter(back_us, span_us):
        return "if this is jitter, add dataset.on_disorder=sort"
    for bits in (32, 31, 24, 23, 16, 15, 8):
        if 0.99 * 2**bits < back_us <= 2**bits:
            return f"this is a {bits}-bit clock that wrapped: store unwrapped times as 64-bit integers"
    return "the clock was reset: split the file there"


JITTER_US = 10_000
"""Largest step back, in microseconds, that counts as jitter. A clock reset steps back much further."""


def percent(share: float) -> str:
    """Format a fraction as a percentage: "0.02 %", "12.3 %", "99.99 %"."""
    value = 100 * share
    return f"{value:.3g} %" if value < 99 else f"{value:.2f} %"
