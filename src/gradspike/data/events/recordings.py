"""Files of events, of all formats: bytes to a `Recording`.

A reader takes the bytes of a file, keeps its order and raises BadRecordingError for what it cannot decode; whether the
events make sense (`Recording.check`) is asked afterwards, of all formats alike.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.aedat2 import read_aedat2, unwrap, version_of
from gradspike.data.events.aedat3 import read_aedat3
from gradspike.data.events.aedat4 import read_aedat4
from gradspike.data.events.recording import BadRecordingError, Recording

_NAMES = {
    "t": ("t", "ts", "time", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "pol", "polarity"),
}


def read_recording(name: str, data: bytes) -> Recording:
    """The events of the file `name` (its ending says the format), whose bytes are `data`. Raises BadRecordingError."""
    ending = os.path.splitext(name)[1].lower()
    if ending not in READERS:
        raise BadRecordingError(f"is of another kind than {', '.join(READERS)}")
    if not data:
        raise BadRecordingError("is empty (0 bytes)")
    try:
        return READERS[ending](data)
    except BadRecordingError:
        raise
    except (ValueError, IndexError, KeyError, struct.error, OverflowError) as error:
        raise BadRecordingError(f"cannot be decoded as {ending}: {error}") from error


def read_aedat(data: bytes) -> Recording:
    """AEDAT 2.0 or 3.1, as the first line says."""
    version = version_of(data)
    if version.startswith("2."):
        return read_aedat2(data)
    if version == "3.1":
        return read_aedat3(data)
    if version.startswith("4."):
        return read_aedat4(data)
    if not data.startswith(b"#"):
        raise BadRecordingError("has no AEDAT header (lines that start with '#')")
    raise BadRecordingError(f"is AEDAT {version}; versions 2.0, 3.1 and 4.0 can be read")


def read_bin(data: bytes) -> Recording:
    """N-MNIST and N-Caltech101 (Orchard et al., Front. Neurosci. 2015): 40 bits an event, big-endian.

    x (8 bits), y (8), polarity (1, set for ON), timestamp in microseconds (23). An event with y = 240 is none: it says
    that 2**13 microseconds have passed (the data set's Read_Ndataset.m).
    """
    if len(data) % 5:
        raise BadRecordingError(f"truncated: {len(data) % 5} bytes after the last whole event")
    columns = np.frombuffer(data, dtype=np.uint8).reshape(-1, 5)
    words = columns.astype(np.int64)
    t = (words[:, 2] & 127) << 16 | words[:, 3] << 8 | words[:, 4]
    overflow = columns[:, 1] == 240
    if overflow.any():
        t += np.cumsum(overflow) << 13
        columns, t = columns[~overflow], t[~overflow]
    x, y = columns[:, 0].astype(np.int16), columns[:, 1].astype(np.int16)
    return Recording(t, x, y, columns[:, 2] > 127, int(np.count_nonzero(overflow)))


def read_dat(data: bytes) -> Recording:
    """Prophesee's .dat of change detection events (N-CARS): lines that start with '%', then 64 bits an event.

    Little-endian: timestamp in microseconds (32 bits, may wrap), then x (bits 0-13), y (bits 14-27), polarity (bit 28,
    set for ON). After the header, one byte for the type of the events and one for their size.
    """
    start, header = 0, []
    while data[start : start + 1] == b"%":
        end = data.find(b"\n", start)
        if end < 0:
            raise BadRecordingError("the file ends inside its header")
        header.append(data[start:end])
        start = end + 1
    if not header:
        raise BadRecordingError("has no header (lines that start with '%')")
    version = next((int(found[1]) for line in header if (found := re.match(rb"% Version (\d+)", line))), 2)
    if version < 2:
        raise BadRecordingError(f"is a .dat file of version {version}; version 2 can be read")
    if len(data) < start + 2:
        raise BadRecordingError("the file ends after its header")
    if data[start + 1] != 8:
        raise BadRecordingError(f"has events of {data[start + 1]} bytes; change detection events have 8")
    start += 2
    if (len(data) - start) % 8:
        raise BadRecordingError(f"truncated: {(len(data) - start) % 8} bytes after the last whole event")
    words = np.frombuffer(data, dtype="<u4", offset=start).astype(np.uint32)
    place = words[1::2]
    x, y = (place & 0x3FFF).astype(np.int16), (place >> 14 & 0x3FFF).astype(np.int16)
    return Recording(unwrap(words[::2]), x, y, (place >> 28 & 1).astype(np.bool_))


def read_npz(data: bytes) -> Recording:
    """A .npz file with the arrays t (microseconds), x, y, p, each [E]; or with one array as in a .npy file."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib, tokenize and numpy each have their own for a damaged file
        raise BadRecordingError(f"cannot be read as .npz: {error}") from error
    if len(arrays) == 1:
        return _from_array(next(iter(arrays.values())))
    return _from_columns(arrays)


def read_npy(data: bytes) -> Recording:
    """A .npy file: a structured array [E] with the fields t, x, y, p in any order, or numbers [E, 4] as t, x, y, p."""
    return _from_array(load_npy(data))


def load_npy(data: bytes) -> NDArray[Any]:
    """The array of a .npy file. Raises BadRecordingError."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # as above
        raise BadRecordingError(f"cannot be read as .npy: {error}") from error
    if not isinstance(array, np.ndarray):
        raise BadRecordingError("is a .npz file that is called .npy")
    return array


def _from_array(array: NDArray[Any]) -> Recording:
    if array.dtype.names:
        return _from_columns({name: array[name] for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] != 4:
        raise BadRecordingError(f"holds an array of shape {array.shape}; events are [E, 4]: t, x, y, p")
    return _recording(*array.T)


def _from_columns(columns: Mapping[str, NDArray[Any]]) -> Recording:
    found = {}
    for field, names in _NAMES.items():
        name = next((name for name in columns if name.lower() in names), None)
        if name is None:
            raise BadRecordingError(f"has no column {field} (it has {', '.join(columns) or 'none'})")
        found[field] = columns[name]
    return _recording(**found)


def _recording(t: NDArray[Any], x: NDArray[Any], y: NDArray[Any], p: NDArray[Any]) -> Recording:
    """Columns of any types as a recording. Polarity is a bool, 0 and 1, or -1 and 1."""
    columns = {"t": np.asarray(t), "x": np.asarray(x), "y": np.asarray(y), "p": np.asarray(p)}
    if len({column.shape for column in columns.values()}) > 1 or columns["t"].ndim != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise BadRecordingError(f"its columns are not of one length: {shapes}")
    for name, column in columns.items():
        if column.dtype.kind not in "biuf":
            raise BadRecordingError(f"column {name} holds {column.dtype}, not numbers")
        if column.dtype.kind == "f" and not (np.isfinite(column).all() and (column == np.rint(column)).all()):
            hint = "; times are whole microseconds" if name == "t" else ""
            raise BadRecordingError(f"column {name} holds numbers that are not whole{hint}")
    for name in ("x", "y"):
        if len(columns[name]) and not -(2**15) <= columns[name].min() <= columns[name].max() < 2**15:
            raise BadRecordingError(f"column {name} goes up to {columns[name].max()}, which is no pixel")
    polarity = columns["p"]
    if polarity.dtype.kind != "b" and not (((polarity == 1) | (polarity == 0)).all() or (np.abs(polarity) == 1).all()):
        raise BadRecordingError("column p holds other values than 0 and 1 (or -1 and 1)")
    x16, y16 = columns["x"].astype(np.int16), columns["y"].astype(np.int16)
    return Recording(columns["t"].astype(np.int64), x16, y16, polarity > 0)


READERS: dict[str, Callable[[bytes], Recording]] = {
    ".aedat4": read_aedat4,
    ".aedat": read_aedat,
    ".bin": read_bin,
    ".npz": read_npz,
    ".npy": read_npy,
    ".dat": read_dat,
}
"""By the ending of the file's name."""
