"""From files of events to samples: the work of one preparation process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.frames import tet_resize, to_frames
from gradspike.data.events.ready_frames import READY, read_ready_frames
from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.prepared.parts import Part
from gradspike.data.source import Split

Reader = Callable[[str, bytes], Recording]
Sample = tuple[int, int, int, int, NDArray[Any]]
"""Label, number of the clip, start in microseconds, number of events (0: unknown), frames."""


@dataclass(frozen=True)
class Clip:
    """A recording with its label and split, or the part [begin_us, end_us) of one.

    group: clips of one group are never divided between splits. rank: the recording's position within its class, by
    number. number: the clip's position among all clips.
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
    """Turns clips into frames: the work of `build_in_parts`. Times are in microseconds.

    Arrays of a part: inputs [n, T, 2, size, size]; int64 [n] each: labels, clip (its number), events (of the sample),
    and begin_us, counted from the start of the recording, or of the file for a clip that is part of a file.
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

    def __call__(self, clips: Sequence[Clip]) -> Part:
        """Read the clips into samples and a list of bad files."""
        samples: list[Sample] = []
        bad: list[BadFile] = []
        unreadable = ""
        last: tuple[str, Recording] | None = None
        for clip in clips:
            if clip.path == unreadable:
                continue
            try:
                if clip.entry.name.lower().endswith(READY):
                    content = clip.files.read(clip.entry)
                    frames, label = read_ready_frames(
                        content, self.time_steps, self.image_size, self.resize, self.binning
                    )
                    samples.append((label, clip.number, 0, 0, frames))
                    continue
                if last is None or last[0] != clip.path:
                    unreadable = clip.path  # until it has been read
                    recording = self.read(clip.entry.name, clip.files.read(clip.entry))
                    recording.check(*self.sensor)
                    last, unreadable = (clip.path, recording), ""
                samples += self._samples(clip, last[1])
            except (OSError, ValueError) as error:
                bad.append(BadFile(clip.path, getattr(error, "strerror", None) or str(error)))
        return _part(samples, tuple(bad))

    def of_recordings(self, clips: Sequence[Clip], recordings: Sequence[Recording]) -> Part:
        """Make samples of recordings that are in memory."""
        samples: list[Sample] = []
        bad = []
        for clip, recording in zip(clips, recordings, strict=True):
            try:
                recording.check(*self.sensor)
                samples += self._samples(clip, recording)
            except ValueError as error:
                bad.append(BadFile(clip.path, str(error)))
        return _part(samples, tuple(bad))

    def _samples(self, clip: Clip, recording: Recording) -> list[Sample]:
        return [
            (clip.label, clip.number, begin, len(part), self.frames(part, span))
            for begin, part, span in self._windows(clip, recording)
        ]

    def frames(self, part: Recording, span: tuple[int, int]) -> NDArray[Any]:
        """Count the events of one sample, all in `span`, into frames [T, 2, image_size, image_size]."""
        options = (self.sensor, self.time_steps, self.bins, span)
        if self.resize == "events":
            size = (self.image_size, self.image_size)
            return to_frames(part, *options, image_size=size, binning=self.binning)
        values = to_frames(part, *options, binning=self.binning).astype(np.float32)
        largest = values.max(axis=(1, 2, 3), keepdims=True)
        return tet_resize(np.divide(values, largest, out=values, where=largest > 0), self.image_size)

    def _windows(self, clip: Clip, recording: Recording) -> Iterator[tuple[int, Recording, tuple[int, int]]]:
        """Start, events and span of each window, or of the whole clip if it is not cut into windows.

        The first window starts at the first event, or at the start of a clip that is part of a recording. An incomplete
        last window and windows without events are left out.
        """
        zero = start = int(recording.t[0])
        end = int(recording.t[-1]) + 1
        if clip.begin_us is not None and clip.end_us is not None:
            zero, start, end = 0, clip.begin_us, clip.end_us
            recording = recording[slice(*np.searchsorted(recording.t, (start, end)).tolist())]
            if not len(recording):
                raise BadRecordingError(f"has no events between {start:,} and {end:,} us, where its labels place one")
        if self.window_us is None or self.stride_us is None:
            yield start - zero, recording, (start, end)
            return
        count = (end - start - self.window_us) // self.stride_us + 1
        if count < 1:
            raise BadRecordingError(
                f"lasts {(end - start) / 1000:,.1f} ms, less than one window of {self.window_us / 1000:,.1f} ms"
            )
        starts = start + np.arange(count) * self.stride_us
        first, after = np.searchsorted(recording.t, starts), np.searchsorted(recording.t, starts + self.window_us)
        for begin, low, high in zip(starts.tolist(), first.tolist(), after.tolist(), strict=True):
            if high > low:
                yield begin - zero, recording[low:high], (begin, begin + self.window_us)


def _part(samples: Sequence[Sample], bad: tuple[BadFile, ...]) -> Part:
    if not samples:
        return Part({}, bad)
    columns = np.array([facts for *facts, _ in samples], dtype=np.int64).T
    arrays = dict(zip(("labels", "clip", "begin_us", "events"), columns, strict=True))
    return Part({"inputs": np.stack([frames for *_, frames in samples]), **arrays}, bad)
