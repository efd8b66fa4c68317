"""Turns event files into samples, in one preparation process."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.clock import in_order, jump
from gradspike.data.events.frames import tet_resize, to_frames
from gradspike.data.events.ready_frames import READY, read_ready_frames
from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.prepared.disk import size_text
from gradspike.data.prepared.parts import Part
from gradspike.data.source import Split
from gradspike.errors import UserError
from gradspike.exhausted import raise_if_exhausted
from gradspike.shown import counted

Reader = Callable[[str, bytes], Recording]
Sample = tuple[int, int, int, int, NDArray[Any]]
"""Label, number of the clip, start in microseconds, number of events (0: unknown), frames."""
DECODED = ("clip", "events", "special", "left_out", "disordered", "jumps", "width", "height", "stated")
"""Columns recorded for each recording: its first clip, counts, the extent of its events, and whether its header states
the sensor size."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, or its part [begin_us, end_us), with label and split.

    group: clips of a group stay in the same split (for the exception, see `EventSource.hold_out`). rank: position of
    the recording within its class, ordered by recording number. number: position of the clip among all clips.
    """

    files: Files
    entry: Entry
    label: int
    split: Split
    group: int
    rank: int = 0
    number: int = 0
    begin_us: int | None = None
    end_us: int | None = None

    @property
    def path(self) -> str:
        """The file's path for messages."""
        return self.files.shown(self.entry.name)


@dataclass(frozen=True)
class ClipFrames:
    """Turns clips into frames; called by `build_in_parts`. Times are in microseconds.

    A part holds the arrays inputs [n, T, 2, size, size]; labels, clip (number), events (count) and begin_us, all int64
    [n]; and decoded, int64 [recordings, DECODED]. begin_us counts from the start of the recording, or from the start of
    the file if the clip is part of a file.
    """

    read: Reader
    sensor: tuple[int, int]
    time_steps: int
    image_size: int
    bins: Literal["equal_time", "equal_count"]
    binning: Literal["count", "binary"]
    resize: Literal["events", "tet"]
    window_us: int | None
    stride_us: int | None
    on_disorder: Literal["error", "sort"]
    on_gap: Literal["error", "keep"]
    max_left_out: float
    classes: int

    def __call__(self, clips: Sequence[Clip]) -> Part:
        """Read clips. Returns their samples and the bad files."""
        samples: list[Sample] = []
        bad: list[BadFile] = []
        noted: list[list[int]] = []
        unreadable = ""
        last: tuple[str, Recording] | None = None
        for clip in clips:
            if clip.path == unreadable:
                continue
            try:
                if clip.entry.name.lower().endswith(READY):
                    content = clip.files.read(clip.entry, most=_memory())
                    frames, label = read_ready_frames(
                        content, self.time_steps, self.image_size, self.resize, self.binning
                    )
                    if label >= self.classes:
                        raise BadRecordingError(
                            f"has label {label}; with {self.classes} classes, labels are 0 to {self.classes - 1}"
                        )
                    samples.append((label, clip.number, 0, 0, frames))
                    continue
                if last is None or last[0] != clip.path:
                    unreadable = clip.path  # cleared once the file is read
                    recording, note = self._decoded(clip)
                    noted.append(note)
                    last, unreadable = (clip.path, recording), ""
                made, jumps = self._samples(clip, last[1])
                samples += made
                noted[-1][DECODED.index("jumps")] |= jumps
            except (OSError, ValueError) as error:
                raise_if_exhausted(error)
                bad.append(BadFile(clip.path, getattr(error, "strerror", None) or str(error)))
            except MemoryError as error:
                raise UserError(
                    f"{clip.path}: not enough memory for a file of {size_text(clip.entry.size)} and its frames. Use "
                    "fewer processes (workers=1), longer windows or a longer stride."
                ) from error
        return _part(samples, tuple(bad), noted)

    def of_recordings(self, clips: Sequence[Clip], recordings: Sequence[Recording]) -> Part:
        """Turn recordings in memory into samples."""
        samples: list[Sample] = []
        bad = []
        for clip, recording in zip(clips, recordings, strict=True):
            try:
                recording.check(*self.sensor)
                samples += self._samples(clip, recording)[0]
            except ValueError as error:
                bad.append(BadFile(clip.path, str(error)))
        return _part(samples, tuple(bad))

    def _decoded(self, clip: Clip) -> tuple[Recording, list[int]]:
        """The recording of a clip, checked and sorted by time, and its row of DECODED."""
        recording = self.read(clip.entry.name, clip.files.read(clip.entry, most=_memory()))
        recording.check_left_out(self.max_left_out)
        recording.check_place(*self.sensor)
        recording, disordered = in_order(recording, self.on_disorder)
        counts = (len(recording), recording.special, recording.left_out, disordered)
        return recording, [clip.number, *counts, 0, *recording.extent, int(recording.sensor == self.sensor)]

    def _samples(self, clip: Clip, recording: Recording) -> tuple[list[Sample], bool]:
        """The samples of a clip, and whether the recording's clock seems to jump."""
        recording, start, zero = _part_of(clip, recording)
        end = int(recording.t[-1]) + 1 if clip.end_us is None else clip.end_us
        span = end - start if self.window_us is None else self.window_us
        if self.bins == "equal_time" and span < self.time_steps:
            raise BadRecordingError(
                f"{counted(len(recording), 'event')} within {counted(span, 'microsecond')} cannot be divided into "
                f"{counted(self.time_steps, 'frame')} of equal time: its times may have another unit"
            )
        gap = jump(recording)
        if gap and self.on_gap == "error" and (self.bins == "equal_time" or self.window_us is not None):
            raise BadRecordingError(
                f"its clock seems to jump: {gap}. Split the file there, or add dataset.on_gap=keep if the gap is real"
            )
        return [
            (clip.label, clip.number, begin - zero, len(part), self.frames(part, span))
            for begin, part, span in self._windows(recording, start, end)
        ], gap is not None

    def frames(self, part: Recording, span: tuple[int, int]) -> NDArray[Any]:
        """Count the events of one sample, all in `span`, into frames [T, 2, image_size, image_size]."""
        options = (self.sensor, self.time_steps, self.bins, span)
        if self.resize == "events":
            size = (self.image_size, self.image_size)
            return to_frames(part, *options, image_size=size, binning=self.binning)
        values = to_frames(part, *options, binning=self.binning).astype(np.float32)
        largest = values.max(axis=(1, 2, 3), keepdims=True)
        return tet_resize(np.divide(values, largest, out=values, where=largest > 0), self.image_size)

    def _windows(self, recording: Recording, start: int, end: int) -> Iterator[tuple[int, Recording, tuple[int, int]]]:
        """Yield start, events and span of each window in `start` to `end`, or of the whole range without windows.

        An incomplete last window and empty windows are left out.
        """
        if self.window_us is None or self.stride_us is None:
            yield start, recording, (start, end)
            return
        count = (end - start - self.window_us) // self.stride_us + 1
        if count < 1:
            raise BadRecordingError(
                f"lasts {(end - start) / 1000:,.1f} ms, less than one window of {self.window_us / 1000:,.1f} ms"
            )
        ranges = _windows_with_events(recording.t - start, count, self.window_us, self.stride_us)
        self._check_memory(sum(stop - first for first, stop in ranges))
        for first, stop in ranges:
            starts = start + np.arange(first, stop) * self.stride_us
            low, high = np.searchsorted(recording.t, starts), np.searchsorted(recording.t, starts + self.window_us)
            for begin, lower, upper in zip(starts.tolist(), low.tolist(), high.tolist(), strict=True):
                if upper > lower:
                    yield begin, recording[lower:upper], (begin, begin + self.window_us)

    def _check_memory(self, windows: int) -> None:
        """Raise BadRecordingError if the frames of this many windows would not fit in memory."""
        needed = windows * self.time_steps * 2 * self.image_size**2
        if needed > _memory() / 2:  # the frames are copied once
            raise BadRecordingError(
                f"gives {counted(windows, 'window')}, {size_text(needed)} of frames: more than fits in this machine's "
                f"memory. Choose a longer window_ms or stride_ms (they are {(self.window_us or 0) / 1000:g} and "
                f"{(self.stride_us or 0) / 1000:g})"
            )


def _part_of(clip: Clip, recording: Recording) -> tuple[Recording, int, int]:
    """The events of a clip, its start time, and the origin of its begin_us."""
    if clip.begin_us is None or clip.end_us is None:
        return recording, int(recording.t[0]), int(recording.t[0])
    part = recording[slice(*np.searchsorted(recording.t, (clip.begin_us, clip.end_us)).tolist())]
    if not len(part):
        raise BadRecordingError(
            f"has no events between {clip.begin_us:,} and {clip.end_us:,} us, although its labels list a clip there"
        )
    return part, clip.begin_us, 0


def _windows_with_events(t: NDArray[np.int64], count: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Ranges of the `count` windows that can contain events, so gaps are free. `t` is relative to the first window."""
    breaks = np.flatnonzero(np.diff(t) > window)
    ranges: list[tuple[int, int]] = []
    for first, last in zip(t[np.r_[0, breaks + 1]].tolist(), t[np.r_[breaks, len(t) - 1]].tolist(), strict=True):
        lowest = max(0, -((window - 1 - first) // stride), ranges[-1][1] if ranges else 0)
        stop = min(count, last // stride + 1)
        if stop > lowest:
            ranges.append((lowest, stop))
    return ranges


def _memory() -> float:
    """Physical memory of this machine in bytes; infinite if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf


def _part(samples: Sequence[Sample], bad: tuple[BadFile, ...], noted: Sequence[Sequence[int]] = ()) -> Part:
    arrays: dict[str, NDArray[Any]] = {}
    if noted:
        arrays["decoded"] = np.array(noted, dtype=np.int64)
    if samples:
        columns = np.array([facts for *facts, _ in samples], dtype=np.int64).T
        arrays |= dict(zip(("labels", "clip", "begin_us", "events"), columns, strict=True))
        arrays["inputs"] = np.stack([frames for *_, frames in samples])
    return Part(arrays, bad)
