"""Events in .npy and .npz files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.data.files.containers import refuse_bomb_inside
from gradspike.shown import counted

_NAMES = {
    "t": ("t", "ts", "time", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "pol", "polarity"),
}

_STARTS = (b"\x93NUMPY", b"PK", b"\x80")
"""Starts of .npy, .npz and pickle files."""


def read_npz(data: bytes) -> Recording:
    """Read a .npz file with arrays t (microseconds), x, y, p, each [E], or with a single array as in `read_npy`."""
    arrays = load_npz(data)
    if len(arrays) == 1:
        return recording_in(next(iter(arrays.values())))
    return _from_columns(arrays)


def read_npy(data: bytes) -> Recording:
    """Read a .npy file: a structured array [E] with fields t, x, y, p, or a plain array [E, 4] in that order."""
    return recording_in(load_npy(data))


def load_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name. Raises BadRecordingError."""
    if not data:
        raise BadRecordingError("is empty (0 bytes)")
    refuse_bomb_inside(data)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged file raises errors of zipfile, zlib, tokenize or numpy
        raise _unreadable(error, ".npz", data) from error


def load_npy(data: bytes) -> NDArray[Any]:
    """The array of a .npy file. Raises BadRecordingError."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # as above
        raise _unreadable(error, ".npy", data) from error
    if not isinstance(array, np.ndarray):
        raise BadRecordingError("is a .npz file with the extension .npy")
    return array


def _unreadable(error: Exception, ending: str, data: bytes) -> BadRecordingError:
    """The reason for the user. numpy takes every file that it does not know for pickled objects."""
    if "allow_pickle" in str(error) and data.startswith(_STARTS):
        return BadRecordingError("contains pickled objects, which can run code and are not allowed in a data file")
    reason = "it does not start as a numpy file" if "allow_pickle" in str(error) else str(error)
    return BadRecordingError(f"cannot be read as {ending}: {reason}")


def recording_in(array: NDArray[Any]) -> Recording:
    """The recording in a structured array [E] with fields t, x, y, p, or a plain array [E, 4] in that order.

    Raises BadRecordingError.
    """
    if array.dtype.names:
        return _from_columns({name: array[name] for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] != 4:
        raise BadRecordingError(f"contains an array of shape {array.shape}; events are [E, 4]: t, x, y, p")
    return recording_of(*array.T)


def _from_columns(columns: Mapping[str, NDArray[Any]]) -> Recording:
    found = {}
    for field, names in _NAMES.items():
        candidates = [name for name in columns if name.lower() in names]
        if not candidates:
            raise BadRecordingError(f"has no column {field} (it has {', '.join(columns) or 'none'})")
        if len(candidates) > 1:
            raise BadRecordingError(f"has several columns for {field}: {', '.join(candidates)}")
        found[field] = columns[candidates[0]]
    return recording_of(**found)


def recording_of(t: NDArray[Any], x: NDArray[Any], y: NDArray[Any], p: NDArray[Any]) -> Recording:
    """Build a recording from columns of any type. Polarity is bool, 0/1 or -1/1. Raises BadRecordingError."""
    columns = {"t": np.asarray(t), "x": np.asarray(x), "y": np.asarray(y), "p": np.asarray(p)}
    if len({column.shape for column in columns.values()}) > 1 or columns["t"].ndim != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise BadRecordingError(f"its columns differ in length: {shapes}")
    for name, column in columns.items():
        _check_whole(name, column)
    if len(columns["t"]):
        low, high = columns["t"].min(), columns["t"].max()
        if low < 0:
            raise BadRecordingError(
                f"column t contains negative times (first: {columns['t'][columns['t'] < 0][0]:,.0f}): 32-bit times "
                "that wrapped, or counted from a trigger; store times from 0 as 64-bit integers"
            )
        if high >= 2**63:
            raise BadRecordingError(f"column t contains {high}, more than {columns['t'].dtype} represents exactly")
        for name in ("x", "y"):
            low, high = columns[name].min(), columns[name].max()
            if low < 0:
                raise BadRecordingError(f"column {name} contains {low}, but pixels count from 0")
            if high >= 2**15:
                raise BadRecordingError(f"column {name} contains {high}, larger than any sensor")
    polarity = columns["p"]
    if polarity.dtype.kind != "b" and not (
        ((polarity == 1) | (polarity == 0)).all() or ((polarity == 1) | (polarity == -1)).all()
    ):
        raise BadRecordingError("column p contains values other than 0 and 1 (or -1 and 1)")
    x16, y16 = columns["x"].astype(np.int16), columns["y"].astype(np.int16)
    return Recording(columns["t"].astype(np.int64), x16, y16, polarity > 0)


def _check_whole(name: str, column: NDArray[Any]) -> None:
    """Raise BadRecordingError unless all values of a column are integers."""
    if column.dtype.kind not in "iuf" + "b" * (name == "p"):
        raise BadRecordingError(f"column {name} has type {column.dtype}, not numbers")
    if column.dtype.kind != "f" or not len(column):
        return
    if not np.isfinite(column).all():
        count = int(np.count_nonzero(~np.isfinite(column)))
        raise BadRecordingError(f"column {name} contains NaN or infinity in {counted(count, 'value')}")
    exact = 2 ** min(np.finfo(column.dtype).nmant + 1, 63)
    if (highest := float(column.max())) >= exact:
        raise BadRecordingError(
            f"column {name} contains {highest:,.0f}, more than {column.dtype} represents exactly (up to {exact:,}): "
            "store integers"
        )
    if not (column == np.rint(column)).all():
        hint = "; times are whole microseconds" if name == "t" else ""
        raise BadRecordingError(f"column {name} contains fractional numbers{hint}")
