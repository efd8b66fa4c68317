"""Turns spike trains into counts per time step and channel, in one preparation process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.frames import narrow
from gradspike.data.events.recording import percent
from gradspike.data.files.bad_file import BadFile
from gradspike.data.options.spikes import UNITS as CHANNELS
from gradspike.data.prepared.parts import Part
from gradspike.data.spikes.hdf5 import TIMES, UNITS, check_spikes, opened
from gradspike.shown import counted

NOTED = ("spikes", "left_out", "disordered")
"""Columns recorded for each recording: spikes counted, spikes after the window, and spikes that were out of order."""


@dataclass(frozen=True, slots=True)
class Train:
    """A recording: its file (a number), its index in the file, label, split (an index) and speaker."""

    file: int
    index: int
    label: int
    split: int
    speaker: int


@dataclass(frozen=True)
class SpikeCounts:
    """Turns recordings into counts; called by `build_in_parts`.

    A part holds inputs [n, T, channels, 1, 1]; labels, listed (split), group (speaker), file and index, [n]; and noted,
    int64 [n, NOTED]. paths, shown: of the files, to read and for messages.
    """

    paths: tuple[Path, ...]
    shown: tuple[str, ...]
    time_steps: int
    pool_channels: int
    window_s: float
    binning: Literal["count", "binary"]
    on_disorder: Literal["error", "sort"]
    max_left_out: float
    classes: int

    def __call__(self, trains: Sequence[Train]) -> Part:
        """Read recordings of one or more files. Returns their samples and the bad recordings."""
        samples: list[NDArray[Any]] = []
        kept: list[Train] = []
        noted: list[tuple[int, int, int]] = []
        bad: list[BadFile] = []
        for number in sorted({train.file for train in trains}):
            with opened(self.paths[number], self.shown[number]) as file:
                for train in (train for train in trains if train.file == number):
                    try:
                        if not 0 <= train.label < self.classes:
                            raise ValueError(f"has label {train.label}; labels are 0 to {self.classes - 1}")
                        counts, note = self.counts(file[TIMES][train.index], file[UNITS][train.index])
                    except ValueError as error:
                        bad.append(BadFile(f"{self.shown[number]}[{train.index}]", str(error)))
                        continue
                    samples.append(counts)
                    kept.append(train)
                    noted.append(note)
        if not samples:
            return Part({}, tuple(bad))
        columns = {
            "labels": [train.label for train in kept],
            "group": [train.speaker for train in kept],
            "file": [train.file for train in kept],
            "index": [train.index for train in kept],
        }
        arrays: dict[str, NDArray[Any]] = {name: np.array(values, dtype=np.int64) for name, values in columns.items()}
        arrays["listed"] = np.array([train.split for train in kept], dtype=np.uint8)
        arrays["noted"] = np.array(noted, dtype=np.int64)
        arrays["inputs"] = np.stack(samples)
        return Part(arrays, tuple(bad))

    def counts(self, times: NDArray[Any], units: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, int, int]]:
        """The counts [T, channels, 1, 1] of a recording, uint8 or int16, and its row of NOTED. Raises ValueError.

        Step k covers [k, k + 1) * window_s / T, computed in float64.
        """
        check_spikes(times, units, CHANNELS)
        seconds = times.astype(np.float64)
        late = np.maximum.accumulate(seconds) > seconds
        disordered = int(late.sum())
        if disordered and self.on_disorder == "error":
            raise ValueError(
                f"has {counted(disordered, 'spike')} out of order, the first at {int(np.argmax(late)):,}; add "
                "dataset.on_disorder=sort, which changes no count"
            )
        inside = seconds < self.window_s
        left_out = len(seconds) - int(inside.sum())
        if left_out > self.max_left_out * len(seconds):
            raise ValueError(
                f"has {left_out:,} of {counted(len(seconds), 'spike')} ({percent(left_out / len(seconds))}) after "
                f"dataset.window_s={self.window_s:g}, the last at {seconds.max():.4g} s. Raise window_s, or "
                f"dataset.max_left_out (it is {self.max_left_out:g})"
            )
        step = (seconds[inside] * self.time_steps / self.window_s).astype(np.int64)
        step = np.minimum(step, self.time_steps - 1)  # rounding may lift a time just below the window's end
        channels = CHANNELS // self.pool_channels
        place = step * channels + units[inside].astype(np.int64) // self.pool_channels
        counts = np.bincount(place, minlength=self.time_steps * channels)
        counts = counts.reshape(self.time_steps, channels, 1, 1)
        stored = (counts > 0).astype(np.uint8) if self.binning == "binary" else narrow(counts)
        return stored, (len(step), left_out, disordered)
