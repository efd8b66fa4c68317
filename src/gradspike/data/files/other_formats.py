"""Recognises files that are no data set (other archives, tables, failed downloads) by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path

_HEAD = 512
"""Bytes of a file that are compared with BEGINNINGS."""

_ARCHIVE = "an archive that gradspike does not read ({kind}). Unpack it ({command}), and give the folder"
_TABLE = "{kind}, which gradspike does not read. Export its images or recordings to <split>/<class>/ folders"
_PACKED = "compressed with {kind} and no complete tar file. Unpack it ({command}); if that fails, download it again"

BEGINNINGS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), _ARCHIVE.format(kind="7-Zip", command="7z x {name}")),
    (re.compile(rb"Rar!\x1a\x07"), _ARCHIVE.format(kind="RAR", command="unrar x {name}")),
    (re.compile(rb"\x28\xb5\x2f\xfd"), _ARCHIVE.format(kind="Zstandard", command="tar --zstd -xf {name}")),
    (re.compile(rb"\x04\x22\x4d\x18"), _ARCHIVE.format(kind="LZ4", command="lz4 -d {name}")),
    (re.compile(rb"\x1f\x9d"), _ARCHIVE.format(kind="compress", command="tar -xZf {name}")),
    (re.compile(rb"LZIP"), _ARCHIVE.format(kind="lzip", command="tar --lzip -xf {name}")),
    (
        re.compile(rb"PK\x07\x08"),
        "a part of a split zip file. Join the parts (zip -s 0 {name} --out whole.zip)",
    ),
    (re.compile(rb"\x1f\x8b"), _PACKED.format(kind="gzip", command="gunzip {name}")),
    (re.compile(rb"BZh\d"), _PACKED.format(kind="bzip2", command="bunzip2 {name}")),
    (re.compile(rb"\xfd7zXZ\x00"), _PACKED.format(kind="xz", command="unxz {name}")),
    (re.compile(rb"PAR1"), _TABLE.format(kind="a Parquet table")),
    (re.compile(rb"ARROW1"), _TABLE.format(kind="an Arrow table")),
    (re.compile(rb"\x89HDF\r\n\x1a\n"), _TABLE.format(kind="an HDF5 file")),
    (re.compile(rb"MATLAB 5"), _TABLE.format(kind="a MATLAB file")),
    (re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP", re.DOTALL), "a single image. Give its folder"),
    (re.compile(rb"#!AER-DAT"), "a single recording. Give its folder"),
    (
        re.compile(rb"version https://git-lfs"),
        "a Git LFS pointer, not the file itself. Run git lfs pull in its repository",
    ),
    (
        re.compile(rb"\s*<(!DOCTYPE|html)", re.IGNORECASE),
        "a web page, so its download failed. Open the address in a browser",
    ),
)


def explained(path: Path) -> str | None:
    """`is a ...` and what to do, for a file that is neither a zip nor a tar file; None if its beginning is unknown."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "is empty (0 bytes). Download it again"
    text = next((text for beginning, text in BEGINNINGS if beginning.match(head)), None)
    return None if text is None else f"is {text.replace('{name}', path.name)}"
