"""Digests of prepared arrays, to detect bits flipped on disk before training starts.

meta.json records the SHA-256 of each array, for `verify=true`, and the CRC-32 of each of its parts. Opening a small set
checks all of it. Opening a larger set checks the small arrays (labels, splits) and randomly chosen parts of the large
ones, so repeated starts cover the whole set. CRC-32 detects every single flipped bit and reads 1 GB/s.
"""

from __future__ import annotations

import hashlib
import logging
import random
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from gradspike.exhausted import raise_if_exhausted

log = logging.getLogger(__name__)

PART_BYTES = 8 * 2**20
WHOLE_BYTES = 256 * 2**20
"""Sets of up to this size are checked completely (0.3 s)."""
WHOLE_ARRAY_BYTES = 16 * 2**20
"""Arrays of up to this size are checked completely in sets of any size."""
SAMPLED = 8
"""Number of parts of the larger arrays to check."""

_on = ContextVar("compare digests", default=True)
_compared: set[tuple[object, ...]] = set()


class DamagedError(Exception):
    """A prepared set differs from what its meta.json records."""


@contextmanager
def trusting() -> Iterator[None]:
    """Open sets without comparing digests, because another process has just compared them."""
    token = _on.set(False)
    try:
        yield
    finally:
        _on.reset(token)


def digests(path: Path) -> dict[str, str]:
    """The SHA-256 of a file, and the CRC-32 of its parts, eight hexadecimal digits each."""
    whole = hashlib.sha256()
    parts = []
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            whole.update(part)
            parts.append(f"{zlib.crc32(part):08x}")
    return {"sha256": whole.hexdigest(), "crc32": "".join(parts)}


def compare(folder: Path, arrays: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise DamagedError if a compared part of an array in `folder` differs from its record in meta.json.

    An unchanged set is checked once per process.
    """
    paths = {name: folder / f"{name}.npy" for name in arrays}
    state = (folder, *((name, path.stat().st_mtime_ns, path.stat().st_ino) for name, path in paths.items()))
    if not _on.get() or state in _compared:
        return
    small = sum(record["bytes"] for record in arrays.values()) <= WHOLE_BYTES
    sampled: list[tuple[str, int]] = []
    without = False
    for name, record in arrays.items():
        parts = range(-(-record["bytes"] // PART_BYTES))
        if not small and record["bytes"] > WHOLE_ARRAY_BYTES:
            sampled += [(name, part) for part in parts]
            without |= "crc32" not in record
        elif "crc32" in record:
            for part in parts:
                _compare_part(paths[name], record, part)
        else:
            compare_whole(paths[name], record)
    if without:
        log.info(
            "%s was prepared by an earlier version, which stored no checksums of its parts. Only `gradspike prepare "
            "... verify=true` can tell whether it is damaged.",
            folder,
        )
    else:
        # A separate generator, because the global one belongs to training.
        for name, part in random.Random().sample(sampled, min(SAMPLED, len(sampled))):
            _compare_part(paths[name], arrays[name], part)
    _compared.add(state)


def compare_whole(path: Path, record: Mapping[str, Any]) -> None:
    """Raise DamagedError unless an array's file has its recorded SHA-256."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise_if_exhausted(error)
        raise DamagedError(f"{path.name} cannot be read ({error.strerror or error})") from error
    if found != record["sha256"]:
        raise DamagedError(f"{path.name} does not have its recorded checksum")


def _compare_part(path: Path, record: Mapping[str, Any], part: int) -> None:
    start = part * PART_BYTES
    with path.open("rb") as file:
        file.seek(start)
        found = f"{zlib.crc32(file.read(PART_BYTES)):08x}"
    if found != record["crc32"][8 * part : 8 * part + 8]:
        stop = min(start + PART_BYTES, record["bytes"])
        count = len(record["crc32"]) // 8
        raise DamagedError(
            f"{path.name}: part {part + 1} of {count} (bytes {start:,} to {stop - 1:,}) does not match its checksum"
        )
