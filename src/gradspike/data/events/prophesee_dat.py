"""Prophesee's .dat files of change detection events, version 2 (N-CARS)."""

from __future__ import annotations

import re

import numpy as np

from gradspike.data.events.aedat2 import unwrap
from gradspike.data.events.recording import BadRecordingError, Recording


def read_dat(data: bytes) -> Recording:
    """Read header lines that start with '%', one byte each for event type and event size, and 64-bit events.

    An event is little-endian: timestamp in microseconds (32 bits, may wrap), x (bits 0-13), y (bits 14-27), polarity
    (bit 28, set for ON).
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
