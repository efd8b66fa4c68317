"""Prepared arrays on disk: built once, opened in milliseconds, never stale and never half written.

A prepared set is a folder `data_dir/prepared/<name>-<hash>` of .npy files and a meta.json. The hash covers everything
that shapes the content (options, time steps, version of the code that builds it), so a changed option finds another
folder rather than old data.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.errors import UserError

log = logging.getLogger(__name__)

FORMAT = 1


class DamagedError(Exception):
    """A prepared set is not what its meta.json says."""


@dataclass(frozen=True)
class Prepared:
    """An opened set: read-only memory-mapped `arrays` by name, and the `facts` its builder wrote down (JSON values)."""

    folder: Path
    arrays: dict[str, NDArray[Any]]
    facts: dict[str, Any]

    def verify(self) -> None:
        """Read every byte and raise DamagedError unless all checksums match."""
        for name, record in _read_meta(self.folder)["arrays"].items():
            if _sha256(self.folder / f"{name}.npy") != record["sha256"]:
                raise DamagedError(f"{name}.npy does not have its recorded checksum")


def prepared(data_dir: Path, name: str, key: Mapping[str, Any], build: Callable[[Path], Mapping[str, Any]]) -> Prepared:
    """Open the set `name` that belongs to `key` (plain JSON values), building it first where it is missing or damaged.

    `build(folder)` saves arrays as folder/<array>.npy and returns facts to be kept in meta.json. It writes to a folder
    beside the final one, which takes its place by one rename; a second process waits for the first and then finds it
    done. Raises UserError when the disk refuses.
    """
    canonical = json.loads(json.dumps({"format": FORMAT, **key}, sort_keys=True))
    digest = hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:16]
    folder = data_dir / "prepared" / f"{name}-{digest}"
    try:
        return _open(folder, canonical)
    except DamagedError:
        pass  # looked at again, and reported, by whoever holds the lock
    from filelock import FileLock

    try:
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            return _open_or_build(folder, name, canonical, build)
    except OSError as error:
        raise UserError(
            f"Preparing '{name}' in {folder.parent} failed: {error.strerror or error}. Nothing half-made is used."
        ) from error


def _open_or_build(
    folder: Path, name: str, key: dict[str, Any], build: Callable[[Path], Mapping[str, Any]]
) -> Prepared:
    """The part that only one process at a time may do."""
    try:
        return _open(folder, key)
    except DamagedError as damage:
        if folder.exists():
            log.warning("The prepared data in %s is damaged (%s); building it again.", folder, damage)
        else:
            log.info("Preparing the data set '%s' in %s (once).", name, folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        facts = build(partial)
        _write_meta(partial, key, facts)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return _open(folder, key)


def _open(folder: Path, key: dict[str, Any]) -> Prepared:
    meta = _read_meta(folder)
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


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if not {"key", "arrays", "facts"} <= meta.keys():
            raise DamagedError("meta.json is incomplete")
    except (OSError, ValueError, AttributeError) as error:
        raise DamagedError(f"meta.json cannot be read: {error}") from error
    return meta  # type: ignore[no-any-return]


def _write_meta(folder: Path, key: dict[str, Any], facts: Mapping[str, Any]) -> None:
    arrays = {}
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays[path.stem] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
    (folder / "meta.json").write_text(json.dumps({"key": key, "facts": dict(facts), "arrays": arrays}, indent=1))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
