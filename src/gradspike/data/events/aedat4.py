"""AEDAT 4.0, the format of iniVation's DV and of tonic's CIFAR10-DVS distribution, decoded by the package `aedat`.

A line of text is followed by a header (a flatbuffer with compression, table offset, and XML description of the streams)
and by packets, which are also flatbuffers and may be compressed.
"""

from __future__ import annotations

import struct
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.packets import check_packets, refuse_too_large
from gradspike.data.events.recording import BadRecordingError, Recording

FIRST_LINE = b"#!AER-DAT4.0\r\n"


def read_aedat4(data: bytes) -> Recording:
    """Read the event stream, keeping rows and columns as stored. Raises BadRecordingError.

    Packets of other streams (frames, IMU, triggers) are left out and counted.
    """
    try:
        import aedat
    except ImportError:
        raise BadRecordingError("needs the package aedat, which is not installed: pip install aedat") from None
    description = check_header(data)
    # The package can only read from a path.
    with tempfile.NamedTemporaryFile(suffix=".aedat4") as file:
        file.write(data)
        file.flush()
        try:
            decoder = aedat.Decoder(file.name)
            streams = sorted(key for key, stream in decoder.id_to_stream().items() if stream["type"] == "events")
            packets, others, total = [], 0, 0
            for packet in decoder:
                if packet["stream_id"] in streams:
                    packets.append(packet["events"])
                    total += packets[-1].nbytes
                    refuse_too_large(total, len(data), "the file")
                else:
                    others += 1
        except BadRecordingError:
            raise
        except BaseException as error:
            # A panic in its Rust code raises PanicException, which is not an Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise BadRecordingError(f"cannot be decoded as .aedat4: {error}") from error
    if not streams:
        raise BadRecordingError("contains no event stream")
    if len(streams) > 1:
        raise BadRecordingError(f"contains {len(streams)} event streams: export each one to its own file")
    return replace(_joined(packets), special=others, sensor=_sensor(description))


def check_header(data: bytes) -> ElementTree.Element:
    """The stream description in the header. Raises BadRecordingError for a damaged header and for `check_packets`.

    The package does not check the header, and a damaged one can crash Python. A flatbuffer table starts with the
    distance back to its vtable, which holds two sizes and the offset of each field (0: absent).
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
        (compression,) = struct.unpack_from("<i", header, table + fields[0]) if fields[0] else (0,)
        (end,) = struct.unpack_from("<q", header, table + fields[1]) if fields[1] else (-1,)
        place = table + fields[2]
        place += struct.unpack_from("<I", header, place)[0]
        (count,) = struct.unpack_from("<I", header, place)
        description = header[place + 4 : place + 4 + count]
        if len(description) < count:
            raise BadRecordingError("its header is damaged")
        check_packets(data, len(FIRST_LINE) + 4 + length, compression, end)
        return ElementTree.fromstring(description.decode())
    except (struct.error, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise BadRecordingError(f"its header is damaged ({error})") from error


def _sensor(description: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height of the sensor, if given in the description of the event stream."""
    for stream in description.iter("node"):
        facts = {attribute.get("key"): attribute.text for attribute in stream.findall("attr")}
        size = {attribute.get("key"): attribute.text or "" for attribute in stream.findall("node[@name='info']/attr")}
        if facts.get("typeIdentifier") == "EVTS" and all(size.get(key, "").isdigit() for key in ("sizeX", "sizeY")):
            return int(size["sizeX"]), int(size["sizeY"])
    return None


def _joined(packets: list[NDArray[Any]]) -> Recording:
    if not packets:
        nothing = np.zeros(0, dtype=np.int16)
        return Recording(nothing.astype(np.int64), nothing, nothing, nothing.astype(np.bool_))
    events = np.concatenate(packets)
    for name in ("x", "y"):
        if len(events) and events[name].max() >= 2**15:
            raise BadRecordingError(f"column {name} contains {events[name].max()}, larger than any sensor")
    on = events["on" if "on" in (events.dtype.names or ()) else "p"]  # the field name depends on the package version
    x, y = events["x"].astype(np.int16), events["y"].astype(np.int16)
    if len(events) and events["t"].max() >= 2**63:
        raise BadRecordingError("contains negative times")
    return Recording(events["t"].astype(np.int64), x, y, on.astype(np.bool_))
