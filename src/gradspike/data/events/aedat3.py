"""AEDAT 3.1, cAER's format: the published DVS128 Gesture files.

The file header is followed by packets. Each packet has a 28-byte header and fixed-size events, all little-endian
(iniVation's format description; libcaer). A polarity event has 32 bits of data and a 31-bit timestamp in microseconds;
the packet header holds the timestamp's upper bits. Data bits:

    bit 0        1 for a valid event
    bit 1        1 for ON (brighter)
    bits 2-16    y, from the top
    bits 17-31   x, from the left
"""

from __future__ import annotations

import struct

import numpy as np

from gradspike.data.events.aedat2 import header_of
from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.shown import counted

POLARITY = 1
EVENT = 8
"""Bytes of a polarity event."""
_PACKET = struct.Struct("<hhiiiiii")


def read_aedat3(data: bytes) -> Recording:
    """Read the polarity events of an AEDAT 3.1 file. Raises BadRecordingError.

    Other event types (special, frame, IMU) and events marked invalid are left out and counted.
    """
    lines, start = header_of(data)
    if b"#!END-HEADER" not in lines:
        raise BadRecordingError("its header has no #!END-HEADER line")
    packets, special, sources = [], 0, set()
    while start < len(data):
        if start + _PACKET.size > len(data):
            raise BadRecordingError("truncated inside the header of a packet")
        kind, source, size, _, overflow, _, number, _ = _PACKET.unpack_from(data, start)
        start += _PACKET.size
        if kind < 0:  # cAER sets the highest bit of the type
            raise BadRecordingError("contains compressed packets, which cannot be read: save it without compression")
        if size < 0 or number < 0 or start + size * number > len(data):
            raise BadRecordingError(f"truncated inside a packet of {counted(number, 'event')}")
        if kind == POLARITY and number:
            if size != EVENT:
                raise BadRecordingError(f"has events of {counted(size, 'byte')}; polarity events have {EVENT}")
            sources.add(source)
            words = np.frombuffer(data, dtype="<u4", count=number * 2, offset=start).reshape(number, 2)
            packets.append((words, overflow))
        else:
            special += number
        start += size * number
    if len(sources) > 1:
        raise BadRecordingError(f"contains events of {len(sources)} cameras: export each to a file of its own")
    word = np.concatenate([words[:, 0] for words, _ in packets]) if packets else np.zeros(0, np.uint32)
    if any((words[:, 1] >> 31).any() or overflow < 0 for words, overflow in packets):
        raise BadRecordingError("contains timestamps of more than 31 bits")
    t = [words[:, 1].astype(np.int64) + (overflow << 31) for words, overflow in packets]
    time = np.concatenate(t) if t else np.zeros(0, np.int64)
    valid = (word & 1).astype(np.bool_)
    invalid = len(word) - int(np.count_nonzero(valid))
    word, time = word[valid], time[valid]
    x, y = (word >> 17).astype(np.int16), (word >> 2 & 0x7FFF).astype(np.int16)
    why = f"{invalid:,} marked as invalid" if invalid else ""
    return Recording(time, x, y, (word >> 1 & 1).astype(np.bool_), special + invalid, invalid, why)
