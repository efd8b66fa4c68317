"""The files of ES-ImageNet (Lin, Ding, Qiang, Deng & Li, Front. Neurosci. 2021), as its authors' loader reads them.

A sample is a .npz file with two arrays, `pos` and `neg`: uint8 [E, 3] of row, column and time step, 1 to 8. A line of
`trainlabel.txt` or `vallabel.txt` names the file, its label and two sizes, a and b. The events are moved by
(254 - a) // 2 rows and (254 - b) // 2 columns into 256x256 pixels, of which rows and columns 16 to 239 are used. A
pixel of a time step is 1 if it has one or more events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.arrays import load_npz
from gradspike.data.events.recording import BadRecordingError
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.prepared.parts import Part, encode_names
from gradspike.exhausted import raise_if_exhausted
from gradspike.shown import counted

STEPS = 8
SIDE = 256
CROP = 16
SIZE = SIDE - 2 * CROP
LARGEST = 254
"""Largest of the sizes in the lists: the events are in the middle of 254 pixels."""
SHAPE = (STEPS, 2, SIZE, SIZE)
"""Time step; OFF, ON; row; column."""
NOTED = ("events", "cropped", "repeated")
"""Columns recorded for each file: events in its frames, events outside them, and events of a pixel that has one in the
same time step."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A line of a list: the file, its label, its split (index into SPLITS) and the sizes that place its events."""

    entry: Entry
    label: int
    split: int
    rows: int
    columns: int


def read_listed(items: Sequence[ListedFile], *, files: Files) -> Part:
    """Read samples into the arrays bits [n, bytes], labels, splits, names and noted [n, NOTED]; called by
    `build_in_parts`."""
    bits: list[NDArray[np.uint8]] = []
    noted: list[tuple[int, int, int]] = []
    good: list[ListedFile] = []
    bad: list[BadFile] = []
    for item in items:
        try:
            frames, note = read_frames(files.read(item.entry), item.rows, item.columns)
        except (OSError, ValueError) as error:
            raise_if_exhausted(error)
            bad.append(BadFile(files.shown(item.entry.name), getattr(error, "strerror", None) or str(error)))
            continue
        bits.append(np.packbits(frames))
        noted.append(note)
        good.append(item)
    if not good:
        return Part({}, tuple(bad))
    arrays: dict[str, NDArray[Any]] = {
        "bits": np.stack(bits),
        "labels": np.array([item.label for item in good], dtype=np.int64),
        "splits": np.array([item.split for item in good], dtype=np.uint8),
        "names": encode_names(item.entry.name for item in good),
        "noted": np.array(noted, dtype=np.int64),
    }
    return Part(arrays, tuple(bad))


def read_frames(data: bytes, rows: int, columns: int) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """The frames (SHAPE) of a file, 0 and 1, and its row of NOTED. Raises BadRecordingError.

    rows, columns: the sizes in the list.
    """
    arrays = load_npz(data)
    frames = np.zeros(SHAPE, dtype=np.uint8)
    total = kept = 0
    for channel, name in enumerate(("neg", "pos")):
        events = _events(arrays, name)
        place = events[:, :2] + np.array([(LARGEST - rows) // 2, (LARGEST - columns) // 2])
        outside = np.flatnonzero((place >= SIDE).any(axis=1))
        if len(outside):
            row, column = events[outside[0], :2].tolist()
            raise BadRecordingError(
                f"{name}: {counted(len(outside), 'event')} outside {SIDE}x{SIDE} pixels, the first in row {row}, "
                f"column {column}, although its list gives the sizes {rows} and {columns}"
            )
        place -= CROP
        inside = ((place >= 0) & (place < SIZE)).all(axis=1)
        row, column = place[inside].T
        frames[events[inside, 2] - 1, channel, row, column] = 1
        total += len(events)
        kept += int(inside.sum())
    if not total:
        raise BadRecordingError("contains no events")
    if not kept:
        raise BadRecordingError(f"none of its {counted(total, 'event')} is in the {SIZE}x{SIZE} pixels in use")
    return frames, (kept, total - kept, kept - int(frames.sum()))


def _events(arrays: dict[str, NDArray[Any]], name: str) -> NDArray[np.int64]:
    """The events of one polarity, int64 [E, 3]: row, column, time step from 1."""
    if name not in arrays:
        raise BadRecordingError(f"has no array {name} (it has {', '.join(arrays) or 'none'})")
    array = arrays[name]
    if array.dtype.kind not in "ui" or array.ndim != 2 or array.shape[1] != 3:
        raise BadRecordingError(
            f"{name} has type {array.dtype} and shape {array.shape}; events are whole numbers [E, 3]: row, column, step"
        )
    events = array.astype(np.int64)
    places = events[:, :2]
    if len(events) and (places.min() < 0 or places.max() >= SIDE):
        raise BadRecordingError(f"{name} has {places.min()} to {places.max()} as rows and columns, not 0 to 255")
    wrong = np.flatnonzero((events[:, 2] < 1) | (events[:, 2] > STEPS))
    if len(wrong):
        raise BadRecordingError(
            f"{name} has {counted(len(wrong), 'event')} of another time step than 1 to {STEPS}: the first has "
            f"{events[wrong[0], 2]}"
        )
    return events
