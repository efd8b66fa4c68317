"""Decodes file names from any operating system, encoding and Unicode form."""

from __future__ import annotations

import struct
import unicodedata
import zipfile
import zlib

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
"""Info-ZIP's extra field with a member's name in UTF-8."""


def class_name(name: str) -> str:
    """The class name of a folder. NFC and NFD forms (macOS writes NFD) of a name are the same class.

    Under a non-UTF-8 locale, Python decodes the bytes differently; here they are always decoded as UTF-8.
    """
    return unicodedata.normalize("NFC", name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


def member_name(info: zipfile.ZipInfo) -> str:
    """The name of a zip member, with "/" as separator: some Windows programs write backslashes.

    Without the UTF-8 flag, zipfile decodes CP437 as the format requires, but many programs write UTF-8 anyway.
    """
    name = info.filename
    if not info.flag_bits & _UTF8_FLAG:
        raw = name.encode("cp437", "replace")
        name = _unicode_path(info.extra, raw) or _as_utf8(raw) or name
    return plain_name(name.replace("\\", "/"))


def plain_name(name: str) -> str:
    """The name of an archive member without empty parts and "." parts: "./a//b" is "a/b".

    A slash in front is kept, because such a name points outside the archive.
    """
    if "//" not in name and "./" not in name:
        return name  # nearly all of a million names
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts:
        return name
    return ("/" if name.startswith("/") else "") + "/".join(parts) + ("/" if name.endswith("/") else "")


def _as_utf8(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > 5 and field[0] == 1:
            (checksum,) = struct.unpack_from("<L", field, 1)
            return _as_utf8(field[5:]) if checksum == zlib.crc32(raw) else None
    return None
