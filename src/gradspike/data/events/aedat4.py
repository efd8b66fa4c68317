"""AEDAT 4.0: what iniVation's DV writes, and how tonic distributes CIFAR10-DVS. Decoded by the package `aedat`.

A line of text, then a header (a flatbuffer: compression, place of a table, and an XML description of the streams), then
packets, compressed or not, each of which is a flatbuffer too.
"""

from __future__ import annotations

import struct
import tempfile
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.recording import BadRecordingError, Recording

FIRST_LINE = b"#!AER-DAT4.0\r\n"


def read_aedat4(data: bytes) -> Recording:
    """The events of the first stream of events, in the order of the file, rows and columns as they are stored.

    Raises BadRecordingError.
    """
    try:
        import aedat
    except ImportError:
        raise BadRecordingError("needs the package aedat, which is not installed: pip install aedat") from None
    check_header(data)
    # The package reads from a path only.
    with tempfile.NamedTemporaryFile(suffix=".aedat4") as file:
        file.write(data)
        file.flush()
        try:
            decoder = aedat.Decoder(file.name)
            streams = sorted(key for key, stream in decoder.id_to_stream().items() if stream["type"] == "events")
            packets = [packet["events"] for packet in decoder if packet["stream_id"] in streams[:1]]
        except BaseException as error:
            # A panic of the Rust code inside comes as a class of its own that is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise BadRecordingError(f"cannot be decoded as .aedat4: {error}") from error
    if not streams:
        raise BadRecordingError("holds no stream of events")
    return _joined(packets)


def check_header(data: bytes) -> None:
    """Raise BadRecordingError unless the header is whole. The package does not look, and a damaged one can end Python.

    A table begins with the distance back to its vtable: two sizes, then the place of each field (0: not there).
    """
    if not data.startswith(FIRST_LINE):
        raise BadRecordingError("does not start with the line #!AER-DAT4.0")
    try:
        (length,) = struct.unpack_from("<I", data, len(FIRST_LINE))
        header = data[len(FIRST_LINE) + 4 :][:length]
        if len(header) < length:
            raise BadRecordingError("the file ends inside its header")
        (table,) = struct.unpack_from("<I", header)
        vtable = table - struct.unpack_from("<i", header, table)[0]
        size, table_size = struct.unpack_from("<HH", header, vtable)
        fields = struct.unpack_from(f"<{size // 2 - 2}H", header, vtable + 4)
        if header[4:8] != b"IOHE" or vtable < 0 or max(fields, default=0) >= table_size or len(fields) < 3:
            raise BadRecordingError("its header is damaged")
        place = table + fields[2]
        place += struct.unpack_from("<I", header, place)[0]
        (count,) = struct.unpack_from("<I", header, place)
        description = header[place + 4 : place + 4 + count]
        if len(description) < count:
            raise BadRecordingError("its header is damaged")
        ElementTree.fromstring(description.decode())
    except (struct.error, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise BadRecordingError(f"its header is damaged ({error})") from error


def _joined(packets: list[NDArray[Any]]) -> Recording:
    if not packets:
        nothing = np.zeros(0, dtype=np.int16)
        return Recording(nothing.astype(np.int64), nothing, nothing, nothing.astype(np.bool_))
    events = np.concatenate(packets)
    for name in ("x", "y"):
        if len(events) and events[name].max() >= 2**15:
            raise BadRecordingError(f"column {name} goes up to {events[name].max()}, which is no pixel")
    on = events["on" if "on" in (events.dtype.names or ()) else "p"]  # by the release of the package
    x, y = events["x"].astype(np.int16), events["y"].astype(np.int16)
    return Recording(events["t"].astype(np.int64), x, y, on.astype(np.bool_))
