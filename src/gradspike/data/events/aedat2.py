"""AEDAT 2.0, jAER's format: recordings of a DVS128, and the original release of CIFAR10-DVS.

After header lines that start with '#', an event is two big-endian 32-bit words: address, and timestamp in microseconds.
The address of a DVS128 (jAER's DVS128 extractor and loadaerdat.m; the data set's dat2mat.m):

    bit 0        1 for OFF (darker), 0 for ON
    bits 1-7     x, counted from the right edge of the scene
    bits 8-14    y, counted from the bottom
    bit 15       set for anything but a change in brightness, such as a pulse at the synchronisation input

Here, columns and rows count from the top left: column 127 - x, row 127 - y. Timestamps wrap after 2**32 microseconds
(71 minutes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.recording import BadRecordingError, Recording

SIZE = 128
VERSION_LINE = b"#!AER-DAT"

_HEADER = (
    b"#!AER-DAT2.0\r\n"
    b"# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
    b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
)


def header_of(data: bytes) -> tuple[list[bytes], int]:
    """The header lines of an AEDAT file of version 1 to 3, without line ends, and the offset of the first event.

    No event of a DVS128 starts with the byte '#', so the end of the header is unambiguous.
    """
    lines, start = [], 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        if end < 0:
            raise BadRecordingError("the file ends inside its header")
        lines.append(data[start:end].rstrip(b"\r"))
        start = end + 1
    return lines, start


def version_of(data: bytes) -> str:
    """The version in an AEDAT file's first line, such as "2.0". By definition of the format, none means "1.0"."""
    line = data[:32].splitlines()[0] if data else b""
    return line.removeprefix(VERSION_LINE).decode("ascii", "replace").strip() if line[:9] == VERSION_LINE else "1.0"


def read_aedat2(data: bytes) -> Recording:
    """Read an AEDAT 2.0 file of a DVS128. Raises BadRecordingError."""
    lines, start = header_of(data)
    for line in lines:
        chip = line.rpartition(b".")[2].strip().decode("ascii", "replace")
        if line.startswith(b"# AEChip:") and "DVS128" not in chip.upper():
            raise BadRecordingError(f"recorded with the sensor {chip}; only AEDAT 2.0 of a DVS128 can be read")
    if (len(data) - start) % 8:
        raise BadRecordingError(f"truncated: {(len(data) - start) % 8} bytes after the last whole event")
    words = np.frombuffer(data, dtype=">u4", offset=start).astype(np.uint32)
    address, t = words[::2], unwrap(words[1::2])
    brightness = address < 1 << 15
    special = len(address) - int(np.count_nonzero(brightness))
    if special:
        address, t = address[brightness], t[brightness]
    bits = address.astype(np.int16)
    return Recording(t, 127 - (bits >> 1 & 127), 127 - (bits >> 8 & 127), (bits & 1) == 0, special)


def unwrap(stamps: NDArray[np.uint32]) -> NDArray[np.int64]:
    """int64 times from 32-bit timestamps that wrap; each step is the shorter way, forwards or backwards."""
    if not len(stamps):
        return np.zeros(0, dtype=np.int64)
    times = np.empty(len(stamps), dtype=np.int64)
    times[0] = stamps[0]
    np.cumsum(np.diff(stamps).view(np.int32), out=times[1:], dtype=np.int64)
    times[1:] += times[0]
    return times


def aedat2_bytes(recording: Recording) -> bytes:
    """The events of a sensor of 128x128 pixels as an AEDAT 2.0 file. Times are written modulo 2**32 microseconds."""
    recording.check(SIZE, SIZE)
    words = np.empty((len(recording), 2), dtype=">u4")
    words[:, 0] = (127 - recording.x.astype(np.uint32)) << 1 | (127 - recording.y.astype(np.uint32)) << 8 | ~recording.p
    words[:, 1] = recording.t & 0xFFFFFFFF
    return _HEADER + words.tobytes()
