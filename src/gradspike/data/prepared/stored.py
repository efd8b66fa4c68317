"""Reads and writes a prepared set: a folder of .npy files and a meta.json with their sizes, digests and facts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.prepared.digests import DamagedError, compare, compare_whole, digests
from gradspike.errors import UserError
from gradspike.exhausted import raise_if_exhausted
from gradspike.json_text import to_json
from gradspike.shown import counted

FORMAT = 1
ABOUT_FILES = ("source", "path", "path_in_data_dir", "bad", "left_out")
"""Facts about the source files of a set. All other facts are about its samples."""


@dataclass(frozen=True)
class Prepared:
    """An opened set: read-only memory-mapped `arrays`, and the `facts` recorded by its builder (JSON values)."""

    folder: Path
    arrays: dict[str, NDArray[Any]]
    facts: dict[str, Any]

    def verify(self) -> None:
        """Read every byte. Raises DamagedError unless all checksums match."""
        for name, record in read_meta(self.folder)["arrays"].items():
            compare_whole(self.folder / f"{name}.npy", record)


def canonical(key: Mapping[str, Any]) -> dict[str, Any]:
    """The key after a round trip through JSON, so keys can be compared."""
    back: dict[str, Any] = json.loads(to_json({"format": FORMAT, **key}, sort_keys=True))
    return back


def folder_of(data_dir: Path, name: str, key: Mapping[str, Any]) -> Path:
    """The folder of the set `name` with this canonical `key`."""
    digest = hashlib.sha256(to_json(key, sort_keys=True).encode()).hexdigest()[:16]
    return data_dir / "prepared" / f"{name}-{digest}"


def stored_sets(data_dir: Path, name: str) -> list[Path]:
    """All sets with this name and any key."""
    shape = re.compile(re.escape(name) + "-[0-9a-f]{16}")
    found = (data_dir / "prepared").glob(f"{name}-*")
    return sorted(folder for folder in found if shape.fullmatch(folder.name) and folder.is_dir())


def derived_sets(opened: Prepared) -> Iterator[Prepared]:
    """The sets derived from this one, such as its splits, without their arrays."""
    for folder in sorted(opened.folder.parent.glob("*-*")):
        try:
            meta = read_meta(folder)
        except DamagedError:
            continue
        if meta["key"].get("of") == opened.folder.name:
            yield Prepared(folder, {}, meta["facts"])


def open_folder(folder: Path) -> Prepared:
    """Open a prepared set by its folder, with any key. Raises DamagedError."""
    return open_stored(folder, read_meta(folder)["key"])


def open_stored(folder: Path, key: Mapping[str, Any]) -> Prepared:
    """Open a prepared set and compare digests (see `digests`).

    Raises DamagedError unless it has this canonical `key` and the recorded arrays.
    """
    meta = read_meta(folder)
    if meta["key"] != key:
        raise DamagedError("meta.json belongs to other data")
    for name, record in meta["arrays"].items():
        path = folder / f"{name}.npy"
        if not path.is_file():
            raise DamagedError(f"{path.name} is missing")
        if (size := path.stat().st_size) != record["bytes"]:
            raise DamagedError(f"{path.name} has {counted(size, 'byte')} instead of {record['bytes']:,}")
    arrays = {name: _open_array(folder / f"{name}.npy", record) for name, record in meta["arrays"].items()}
    compare(folder, meta["arrays"])
    return Prepared(folder, arrays, meta["facts"])


def _open_array(path: Path, record: Mapping[str, Any]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged headers raise OSError, ValueError, SyntaxError or tokenize.TokenError
        _raise_unless_damaged(path, error)
        raise DamagedError(f"{path.name} cannot be read: {error}") from error
    if list(array.shape) != record["shape"] or array.dtype.str != record["dtype"]:
        raise DamagedError(
            f"{path.name} contains {array.dtype.str} {array.shape} instead of {record['dtype']} {record['shape']}"
        )
    return array


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of meta.json: key, facts, arrays. Raises DamagedError."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if not {"key", "arrays", "facts"} <= meta.keys():
            raise DamagedError("meta.json is incomplete")
        if meta.pop("digest", None) not in (None, _digest(meta)):
            raise DamagedError("meta.json does not match its checksum")
    except (OSError, ValueError, AttributeError) as error:
        _raise_unless_damaged(folder / "meta.json", error)
        raise DamagedError(f"meta.json cannot be read: {error}") from error
    return meta  # type: ignore[no-any-return]


def _raise_unless_damaged(path: Path, error: Exception) -> None:
    """Raise an error that says nothing about the file: the set would be built again, and replaced."""
    raise_if_exhausted(error)
    if isinstance(error, PermissionError):
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def write_meta(folder: Path, key: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write meta.json for the arrays in `folder`."""
    arrays = {}
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays[path.stem] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "bytes": path.stat().st_size,
            **digests(path),
        }
    meta = json.loads(to_json({"key": dict(key), "facts": dict(facts), "arrays": arrays}))  # as it will be read
    meta["digest"] = _digest(meta)
    (folder / "meta.json").write_text(to_json(meta, indent=1), encoding="utf-8")


def _digest(meta: Mapping[str, Any]) -> str:
    """The SHA-256 of the part of meta.json that describes the samples."""
    facts = {name: fact for name, fact in meta["facts"].items() if name not in ABOUT_FILES}
    return hashlib.sha256(to_json({**meta, "facts": facts}, sort_keys=True).encode()).hexdigest()
