"""AEDAT 2.0, jAER's format: DVS128 and DAVIS recordings, and the original release of CIFAR10-DVS.

Header lines start with '#'. Each event is then two big-endian 32-bit words: the address, and a timestamp in
microseconds that wraps at 2**32 (71 minutes). The address layout depends on the sensor (see `chips`). The header may
name the sensor: "# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128".
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.chips import CHIPS, Decoded, chip_named, chips_that_fit, decode
from gradspike.data.events.recording import MAX_LEFT_OUT, BadRecordingError, Recording, percent
from gradspike.errors import unknown
from gradspike.shown import counted

SIZE = 128
VERSION_LINE = b"#!AER-DAT"

_HEADER = (
    b"#!AER-DAT2.0\r\n"
    b"# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
    b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
)


_CHIP = re.compile(rb"#\s*AEChip\s*[:=]\s*(.*\S)", re.IGNORECASE)


def header_of(data: bytes) -> tuple[list[bytes], int]:
    """The header lines (without newlines) of an AEDAT 1 to 3 file, and the offset of the first event.

    A DAVIS event may also start with the byte '#', but it then contains a zero byte, and header lines never do.
    """
    lines, start = [], 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        line = data[start : len(data) if end < 0 else end]
        if b"\0" in line:
            break
        if end < 0:
            raise BadRecordingError("the file ends inside its header")
        lines.append(line.rstrip(b"\r"))
        start = end + 1
    return lines, start


def version_of(data: bytes) -> str:
    """The version in the first line of an AEDAT file, such as "2.0". The format defines a missing version as "1.0"."""
    line = data[:32].splitlines()[0] if data else b""
    return line.removeprefix(VERSION_LINE).decode("ascii", "replace").strip() if line[:9] == VERSION_LINE else "1.0"


def read_aedat2(data: bytes, chip: str | None = None) -> Recording:
    """Read an AEDAT 2.0 file. chip: a key of CHIPS, or None to use the header's. Raises BadRecordingError."""
    lines, start = header_of(data)
    if (len(data) - start) % 8:
        raise BadRecordingError(f"truncated: {counted((len(data) - start) % 8, 'byte')} after the last complete event")
    words = np.frombuffer(data, dtype=">u4", offset=start).astype(np.uint32)
    address, stamps = words[::2], words[1::2]
    in_header = next((found[1].decode("utf-8", "replace") for line in lines if (found := _CHIP.match(line))), None)
    name = _chip(in_header, chip) or _without_name(address)
    stated = chip is not None or in_header is not None
    decoded = decode(address, CHIPS[name])
    good = decoded.good
    x, y, p, t = decoded.x, decoded.y, decoded.p, unwrap(stamps)
    if not good.all():
        x, y, p, t = x[good], y[good], p[good], t[good]
    left_out, why = _left_out(decoded, name)
    sensor = (CHIPS[name].width, CHIPS[name].height) if stated else None
    return Recording(t, x, y, p, len(address) - len(t), left_out, why, sensor)


def _chip(in_header: str | None, wanted: str | None) -> str | None:
    """The chip named by the header or the user, or None."""
    if in_header is None:
        return wanted
    found = chip_named(in_header)
    short = in_header.rpartition(".")[2]
    if found is None and wanted is None:
        raise BadRecordingError(
            f"recorded with an {unknown('sensor', short, CHIPS)}. If its address layout matches one of these, set "
            "dataset.chip"
        )
    if found is not None and wanted not in (None, found):
        raise BadRecordingError(f"its header names the sensor {short}, but a {wanted} is expected")
    return wanted or found


def _without_name(address: NDArray[np.uint32]) -> str:
    """Assume a DVS128 if the addresses fit it: files of this sensor, jAER's first, often do not name it."""
    decoded = decode(address, CHIPS["dvs128"])
    wrong = decoded.strays + decoded.pulses
    if wrong <= MAX_LEFT_OUT * len(address):
        return "dvs128"
    fitting = chips_that_fit(address, MAX_LEFT_OUT)
    choices = (f"dataset.chip={name} ({CHIPS[name].width}x{CHIPS[name].height})" for name in fitting)
    advice = f"They match {' or '.join(choices)}" if fitting else f"They match no known chip ({', '.join(CHIPS)})"
    raise BadRecordingError(
        f"its header names no sensor, and {percent(wrong / len(address))} of its {len(address):,} addresses are "
        f"invalid for a DVS128. {advice}"
    )


def _left_out(decoded: Decoded, chip: str) -> tuple[int, str]:
    parts = (
        (decoded.strays, f"at addresses invalid for a {chip}"),
        (decoded.pulses, "pulses at the synchronisation or external input"),
    )
    return sum(count for count, _ in parts), ", ".join(f"{count:,} {what}" for count, what in parts if count)


def unwrap(stamps: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Unwrap 32-bit timestamps to int64. Each step is taken in the shorter direction, forwards or backwards."""
    if not len(stamps):
        return np.zeros(0, dtype=np.int64)
    times = np.empty(len(stamps), dtype=np.int64)
    times[0] = stamps[0]
    np.cumsum(np.diff(stamps).view(np.int32), out=times[1:], dtype=np.int64)
    times[1:] += times[0]
    return times


def aedat2_bytes(recording: Recording) -> bytes:
    """Encode the events of a 128x128 sensor as AEDAT 2.0. Timestamps are stored modulo 2**32 microseconds."""
    recording.check(SIZE, SIZE)
    words = np.empty((len(recording), 2), dtype=">u4")
    words[:, 0] = (127 - recording.x.astype(np.uint32)) << 1 | (127 - recording.y.astype(np.uint32)) << 8 | ~recording.p
    words[:, 1] = recording.t & 0xFFFFFFFF
    return _HEADER + words.tobytes()
