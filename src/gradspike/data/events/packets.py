"""Refuses compressed packets of AEDAT 4.0 that would fill the memory, before any of them is unpacked.

Both formats store data in blocks of limited size, so their headers bound what a packet unpacks to. A size declared in a
header is not trusted. Formats: LZ4 Frame Format 1.6.4; Zstandard, RFC 8878.
"""

from __future__ import annotations

import struct

from gradspike.data.events.recording import BadRecordingError
from gradspike.data.files.containers import BOMB_BYTES, BOMB_RATIO

LZ4, ZSTD = (1, 2), (3, 4)
"""Values of the header's field `compression`: LZ4 and LZ4_HIGH, ZSTD and ZSTD_HIGH."""
_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK = 128 * 1024
_LZ4_RATIO = 255


def refuse_too_large(unpacked: int, packed: int, what: str) -> None:
    """Raise BadRecordingError if `what` of `packed` bytes takes implausibly many bytes when it is unpacked."""
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
        raise BadRecordingError(
            f"{what} of {packed:,} bytes unpacks to up to {unpacked:,} bytes, as in a file made to fill the memory"
        )


def check_packets(data: bytes, start: int, compression: int, end: int) -> None:
    """Check the packets of a file from byte `start` on. Raises BadRecordingError.

    compression: the field of the header. end: position of the table behind the packets; -1 without a table.
    """
    if compression not in (*LZ4, *ZSTD):
        return
    while start != end and start + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, start + 4)
        packet = data[start + 8 : start + 8 + length]
        try:
            bound = lz4_bound(packet) if compression in LZ4 else zstd_bound(packet)
        except (struct.error, IndexError) as error:
            raise BadRecordingError("the file ends inside a packet, or a packet is damaged") from error
        refuse_too_large(bound, length, "a packet")
        start += 8 + length


def lz4_bound(packet: bytes) -> int:
    """The most bytes that an LZ4 frame unpacks to. Raises IndexError or struct.error if it is cut off."""
    if not packet.startswith(_LZ4_MAGIC):
        raise BadRecordingError("a packet is not compressed with LZ4, which the header states")
    flags, descriptor = packet[4], packet[5]
    largest = 1 << 2 * (descriptor >> 4 & 7) + 8
    place = 7 + 8 * (flags >> 3 & 1) + 4 * (flags & 1)
    total = 0
    while True:
        (size,) = struct.unpack_from("<I", packet, place)
        if not size:
            return total
        stored = size & 0x7FFFFFFF
        total += stored if size >> 31 else min(largest, _LZ4_RATIO * stored)
        place += 4 + stored + 4 * (flags >> 4 & 1)


def zstd_bound(packet: bytes) -> int:
    """The most bytes that Zstandard frames unpack to. Raises IndexError or struct.error if one is cut off."""
    place = total = 0
    while place < len(packet):
        if packet[place : place + 4] != _ZSTD_MAGIC:
            raise BadRecordingError("a packet is not compressed with Zstandard, which the header states")
        flags = packet[place + 4]
        single = flags >> 5 & 1
        content_size = (single, 2, 4, 8)[flags >> 6]
        place += 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + content_size
        last = 0
        while not last:
            header = int.from_bytes((packet[place], packet[place + 1], packet[place + 2]), "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            total += _ZSTD_BLOCK if kind == 2 else size
            place += 3 + (1 if kind == 1 else size)
        place += 4 * (flags >> 2 & 1)
    return total
