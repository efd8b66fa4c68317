"""Prophesee's .dat files of change detection events, version 2 (N-CARS)."""

from __future__ import annotations

import re

import numpy as np

from gradspike.data.events.aedat2 import unwrap
from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.shown import counted

_CHANGES = (0, 12)
"""Event types of change detection: 2D and CD."""


def read_dat(data: bytes) -> Recording:
    """Read header lines that start with '%', one byte each for event type and event size, and 64-bit events.

    Events are little-endian: a 32-bit timestamp in microseconds that may wrap, then x (bits 0-13), y (bits 14-27) and
    polarity (bit 28, set for ON).
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
    if raw := next((line for line in header if re.match(rb"% (evt|format)\b", line)), None):
        kind = raw[2:].decode("ascii", "replace").strip()
        raise BadRecordingError(f"is a Prophesee RAW file ({kind}), not a .dat file")
    version = next((int(found[1]) for line in header if (found := re.match(rb"% Version (\d+)", line))), 2)
    if version < 2:
        raise BadRecordingError(f"is a .dat file of version {version}; only version 2 is supported")
    if len(data) < start + 2:
        raise BadRecordingError("the file ends after its header")
    if data[start] not in _CHANGES:
        raise BadRecordingError(f"contains events of type {data[start]}; change detection events have type 0 or 12")
    if data[start + 1] != 8:
        raise BadRecordingError(f"has events of {counted(data[start + 1], 'byte')}; change detection events have 8")
    start += 2
    if (len(data) - start) % 8:
        raise BadRecordingError(f"truncated: {counted((len(data) - start) % 8, 'byte')} after the last complete event")
    words = np.frombuffer(data, dtype="<u4", offset=start).astype(np.uint32)
    place = words[1::2]
    if (place >> 29).any():
        raise BadRecordingError("contains polarities other than 0 and 1")
    x, y = (place & 0x3FFF).astype(np.int16), (place >> 14 & 0x3FFF).astype(np.int16)
    return Recording(unwrap(words[::2]), x, y, (place >> 28 & 1).astype(np.bool_), sensor=_sensor(header))


def _sensor(header: list[bytes]) -> tuple[int, int] | None:
    """Width and height of the sensor, if given in the header."""
    facts = {found[1].lower(): int(found[2]) for line in header if (found := re.match(rb"% (\w+) (\d+)\s*$", line))}
    width, height = facts.get(b"width"), facts.get(b"height")
    return (width, height) if width and height else None
