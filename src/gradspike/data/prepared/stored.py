"""A prepared set on disk: a folder of .npy files and a meta.json with their sizes, checksums and facts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1


class DamagedError(Exception):
    """A prepared set differs from what its meta.json records."""


@dataclass(frozen=True)
class Prepared:
    """An opened set: read-only memory-mapped `arrays`, and the `facts` recorded by its builder (JSON values)."""

    folder: Path
    arrays: dict[str, NDArray[Any]]
    facts: dict[str, Any]

    def verify(self) -> None:
        """Read every byte. Raises DamagedError unless all checksums match."""
        for name, record in read_meta(self.folder)["arrays"].items():
            if _sha256(self.folder / f"{name}.npy") != record["sha256"]:
                raise DamagedError(f"{name}.npy does not have its recorded checksum")


def canonical(key: Mapping[str, Any]) -> dict[str, Any]:
    """The key after a round trip through JSON, so that keys can be compared."""
    back: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **key}, sort_keys=True))
    return back


def folder_of(data_dir: Path, name: str, key: Mapping[str, Any]) -> Path:
    """The folder of the set `name` with this canonical `key`."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return data_dir / "prepared" / f"{name}-{digest}"


def stored_sets(data_dir: Path, name: str) -> list[Path]:
    """All sets of that name, with any key."""
    shape = re.compile(re.escape(name) + "-[0-9a-f]{16}")
    found = (data_dir / "prepared").glob(f"{name}-*")
    return sorted(folder for folder in found if shape.fullmatch(folder.name) and folder.is_dir())


def open_folder(folder: Path) -> Prepared:
    """Open a prepared set by its folder, whatever its key. Raises DamagedError."""
    return open_stored(folder, read_meta(folder)["key"])


def open_stored(folder: Path, key: Mapping[str, Any]) -> Prepared:
    """Open a prepared set. Raises DamagedError unless it has this canonical `key` and arrays of the recorded sizes."""
    meta = read_meta(folder)
    if meta["key"] != key:
        raise DamagedError("meta.json belongs to other data")
    arrays = {}
    for name, record in meta["arrays"].items():
        path = folder / f"{name}.npy"
        size = path.stat().st_size if path.is_file() else None
        if size != record["bytes"]:
            raise DamagedError(
                f"{path.name} has {size} bytes instead of {record['bytes']}"
                if size is not None
                else f"{path.name} is missing"
            )
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DamagedError(f"{path.name} cannot be read: {error}") from error
        if list(array.shape) != record["shape"] or array.dtype.str != record["dtype"]:
            raise DamagedError(
                f"{path.name} holds {array.dtype.str} {array.shape} instead of {record['dtype']} {record['shape']}"
            )
        arrays[name] = array
    return Prepared(folder, arrays, meta["facts"])


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of meta.json: key, facts, arrays. Raises DamagedError."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if not {"key", "arrays", "facts"} <= meta.keys():
            raise DamagedError("meta.json is incomplete")
    except (OSError, ValueError, AttributeError) as error:
        raise DamagedError(f"meta.json cannot be read: {error}") from error
    return meta  # type: ignore[no-any-return]


def write_meta(folder: Path, key: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write meta.json for the arrays in `folder`."""
    arrays = {}
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays[path.stem] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
    meta = {"key": dict(key), "facts": dict(facts), "arrays": arrays}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
