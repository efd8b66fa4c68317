"""The HDF5 files of SHD and SSC (Cramer et al., TNNLS 2022): spikes/times, spikes/units, labels and extra.

spikes/times: seconds, float16 or float32 of variable length; spikes/units: channels from 0; labels: whole numbers;
extra/keys: class names by label; extra/speaker: the speaker of each recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.errors import UserError
from gradspike.exhausted import raise_if_exhausted
from gradspike.shown import counted, listed

TIMES, UNITS, LABELS, KEYS, SPEAKER = "spikes/times", "spikes/units", "labels", "extra/keys", "extra/speaker"


@dataclass(frozen=True)
class Recordings:
    """What a file says about its recordings: labels and speakers, int64 [N], and class names by label."""

    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    class_names: tuple[str, ...]


@contextmanager
def opened(path: Path, shown: str) -> Iterator[Any]:
    """The open h5py.File. Raises UserError if it is damaged, or becomes unreadable inside the block."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:  # h5py raises both for damaged files
        raise_if_exhausted(error)
        raise UserError(f"{shown} cannot be read: it is damaged, incomplete or not HDF5 ({error}).") from error


def read_facts(path: Path, shown: str) -> Recordings:
    """Labels, speakers and class names of a file. Raises UserError if it has another structure.

    shown: the path for messages.
    """
    import h5py

    with opened(path, shown) as file:
        missing = [name for name in (TIMES, UNITS, LABELS, KEYS) if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            found: list[str] = []
            file.visit(found.append)
            raise UserError(f"{shown} has no {listed(missing)}; it contains {listed(found[:20]) or 'nothing'}.")
        lengths = {name: len(file[name]) for name in (TIMES, UNITS, LABELS)}
        if SPEAKER in file:
            lengths[SPEAKER] = len(file[SPEAKER])
        if len(set(lengths.values())) > 1:
            raise UserError(
                f"{shown}: {listed(f'{name} has {count:,}' for name, count in lengths.items())} recordings."
            )
        for name in (TIMES, UNITS):
            if h5py.check_vlen_dtype(file[name].dtype) is None:
                raise UserError(f"{shown}: {name} has type {file[name].dtype}; expected arrays of variable length.")
        labels = np.asarray(file[LABELS])
        speakers = np.asarray(file[SPEAKER]) if SPEAKER in file else np.arange(len(labels))
        for name, values in ((LABELS, labels), (SPEAKER, speakers)):
            if values.dtype.kind not in "iu" or values.ndim != 1:
                raise UserError(f"{shown}: {name} has type {values.dtype} {values.shape}; expected whole numbers.")
        names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in np.asarray(file[KEYS]))
        if len(set(names)) < len(names):
            raise UserError(f"{shown}: {KEYS} names a class twice: {listed(names)}.")
    if not len(labels):
        raise UserError(f"{shown} contains no recordings.")
    return Recordings(labels.astype(np.int64), speakers.astype(np.int64), names)


def check_spikes(times: NDArray[Any], units: NDArray[Any], channels: int) -> None:
    """Raise ValueError unless these are the spikes of a recording: times in seconds from 0, units below `channels`."""
    if not len(times):
        raise ValueError("contains no spikes")
    if len(times) != len(units):
        raise ValueError(f"has {counted(len(times), 'time')} and {counted(len(units), 'unit')}")
    if times.dtype.kind != "f" or units.dtype.kind not in "iu":
        raise ValueError(f"has times of type {times.dtype} and units of type {units.dtype}")
    if not np.isfinite(times).all():
        raise ValueError(f"has NaN or infinity in {counted(int((~np.isfinite(times)).sum()), 'time')}")
    if times.min() < 0:
        raise ValueError(f"has a time before the start: {times.min()} s")
    outside = (units < 0) | (units >= channels) if units.dtype.kind == "i" else units >= channels
    if outside.any():
        count = counted(int(outside.sum()), "spike")
        raise ValueError(f"has {count} of unit {units[outside][0]}; units are 0 to {channels - 1}")
