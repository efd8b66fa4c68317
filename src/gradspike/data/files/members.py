"""Reads members of archives at their places, and keeps the archives open."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from gradspike.data.files.containers import BOMB_BYTES, Entry, refuse_bomb
from gradspike.data.files.names import member_name

_HEADER = struct.Struct("<4s2xHH16xHH")
"""A zip member's own header: signature, flags, method, and the lengths of name and extra fields."""
_SIGNATURE = b"PK\x03\x04"
_OVERHEAD = 1024
"""Deflated files of up to 3 MB are longer than their content by less than this."""

Opened = tuple[Path, int, int, int]


def tar_member(path: Path, entry: Entry, compressed: bool) -> bytes:
    """The content of a tar file's member. Raises ValueError if the file ends before."""
    file = _unpacked(*_now(path)) if compressed else _plain(*_now(path))
    file.seek(entry.offset)
    content = file.read(entry.size)
    if len(content) != entry.size:
        raise ValueError("is truncated")
    return content


def zip_member(path: Path, name: str, entry: Entry) -> bytes:
    """The content of a zip file's member. Raises ValueError if it is implausibly large, else the errors of zipfile."""
    if entry.size <= BOMB_BYTES:
        content = _at_its_place(path, entry)
        if content is not None:
            return content
    archive = _zip(*_now(path))
    refuse_bomb(entry.size, archive.getinfo(name).compress_size)
    return archive.read(name)


def _at_its_place(path: Path, entry: Entry) -> bytes | None:
    """A stored or deflated member; None for any other, and if anything is odd, which zipfile then describes."""
    file = _plain(*_now(path))
    file.seek(entry.offset)
    header = file.read(_HEADER.size)
    if len(header) != _HEADER.size:
        return None
    signature, _, method, name_bytes, extra_bytes = _HEADER.unpack(header)
    if signature != _SIGNATURE:
        return None
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    if method == zipfile.ZIP_STORED:
        content = file.read(entry.size)
    elif method == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(
                file.read(entry.size + _OVERHEAD), max_length=entry.size + 1
            )
        except zlib.error:
            return None
    else:
        return None
    return content if len(content) == entry.size and zlib.crc32(content) == entry.mark else None


def _now(path: Path) -> Opened:
    """Cache key of an open file. A changed file gets a new key, as does a forked worker: handles must not be shared."""
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns, os.getpid()


@lru_cache(maxsize=4)
def _zip(*opened: *Opened) -> zipfile.ZipFile:
    """An open zip file with its directory, which is large and slow to read."""
    archive = zipfile.ZipFile(opened[0])
    for info in archive.infolist():
        info.filename = member_name(info)
    archive.NameToInfo = {info.filename: info for info in archive.infolist()}
    return archive


@lru_cache(maxsize=4)
def _plain(*opened: *Opened) -> IO[bytes]:
    return opened[0].open("rb")


@lru_cache(maxsize=4)
def _unpacked(*opened: *Opened) -> IO[bytes]:
    file: IO[bytes] = opener(opened[0])(opened[0], "rb")
    return file


def opener(path: Path) -> Any:
    """The function that opens a file for decompressed reading, selected by the file's first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
    openers = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    return next((opener for magic, opener in openers.items() if start.startswith(magic)), open)
