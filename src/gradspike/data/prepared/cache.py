"""Prepared arrays on disk: built once, opened in milliseconds, never stale, never half written.

A prepared set is a folder `data_dir/prepared/<name>-<hash>` of .npy files and a meta.json. The hash covers everything
that shapes the content (files, options, code version), so a changed option opens another folder instead of old data.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.prepared.disk import free_space, is_full, size_text
from gradspike.data.prepared.parts import PARTS
from gradspike.errors import UserError

log = logging.getLogger(__name__)

FORMAT = 1
OF_ORIGIN = ("format", "source")
"""Keys about the origin of a set, not about its options; so are all keys with "version" in their name."""


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
        for name, record in _read_meta(self.folder)["arrays"].items():
            if _sha256(self.folder / f"{name}.npy") != record["sha256"]:
                raise DamagedError(f"{name}.npy does not have its recorded checksum")


def prepared(
    data_dir: Path,
    name: str,
    key: Mapping[str, Any],
    build: Callable[[Path], Mapping[str, Any]],
    level: int = logging.INFO,
) -> Prepared:
    """Open the set `name` with this `key` (JSON values), building it first if it is missing or damaged.

    `build(folder)` writes arrays as folder/<array>.npy and returns facts for meta.json. The folder is a temporary one
    that is renamed when complete. A second process waits for the first and opens its result. An interrupted build in
    parts (see `parts`) continues where it stopped. Raises UserError if the disk fails. level: logging level of the
    message that a set is being prepared.
    """
    canonical = _canonical(key)
    digest = hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:16]
    folder = data_dir / "prepared" / f"{name}-{digest}"
    try:
        return _open(folder, canonical)
    except DamagedError:
        pass  # checked again, and reported, under the lock
    try:
        folder.parent.mkdir(exist_ok=True)
        with _only_process(folder.parent / f".{folder.name}.lock", name):
            return _open_or_build(folder, name, canonical, build, level)
    except OSError as error:
        if is_full(error):
            kept = f" Finished parts are kept in {_partial(folder)}." if _partial(folder).is_dir() else ""
            reason = error.strerror or "No space left on device"
            raise UserError(
                f"Preparing '{name}' in {folder.parent} failed: {reason} ({free_space(folder.parent)} free).{kept} "
                "Free some space and start again, or choose another folder with data_dir=..."
            ) from error
        raise UserError(f"Preparing '{name}' in {folder.parent} failed: {error.strerror or error}.") from error


def find_prepared(data_dir: Path, name: str, key: Mapping[str, Any]) -> Prepared | None:
    """The only set `name` whose key equals `key` except for its "source": what can be opened without the files."""
    canonical = _canonical(key)
    found = []
    for folder in _siblings(data_dir / "prepared", name):
        try:
            of_folder = _read_meta(folder)["key"]
            if {**of_folder, "source": None} == {**canonical, "source": None}:
                found.append(_open(folder, of_folder))
        except DamagedError:
            continue
    return found[0] if len(found) == 1 else None


def open_folder(folder: Path) -> Prepared:
    """Open a prepared set by its folder, whatever its key. Raises DamagedError."""
    return _open(folder, _read_meta(folder)["key"])


def _canonical(key: Mapping[str, Any]) -> dict[str, Any]:
    """The key after a round trip through JSON, so that keys can be compared."""
    canonical: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **key}, sort_keys=True))
    return canonical


@contextmanager
def _only_process(lock: Path, name: str) -> Iterator[None]:
    """Hold a lock, with a message if another process holds it. The system releases it when a process dies."""
    from filelock import FileLock, Timeout

    holder = FileLock(lock)
    try:
        holder.acquire(timeout=0.5)
    except Timeout:
        log.info("Another process is preparing '%s'. Waiting for it.", name)
        holder.acquire()
    try:
        yield
    finally:
        holder.release()


def _open_or_build(
    folder: Path, name: str, key: dict[str, Any], build: Callable[[Path], Mapping[str, Any]], level: int
) -> Prepared:
    """What only one process at a time may do."""
    partial = _partial(folder)
    continues = (partial / PARTS).is_dir()
    try:
        return _open(folder, key)
    except DamagedError as damage:
        if folder.exists():
            log.warning("The prepared set in %s is damaged (%s). Building it again.", folder, damage)
        elif continues:
            log.log(level, "Continuing the preparation of '%s' in %s.", name, folder)
        else:
            log.log(level, "Preparing the data set '%s' once, in %s.", name, folder)
    if not continues:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    try:
        facts = build(partial)
        _write_meta(partial, key, facts)
        shutil.rmtree(partial / PARTS, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        if not (partial / PARTS).is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        raise
    _report_old_sets(folder, name, key)
    return _open(folder, key)


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _siblings(parent: Path, name: str) -> list[Path]:
    """All sets of that name, with any key."""
    shape = re.compile(re.escape(name) + "-[0-9a-f]{16}")
    return sorted(folder for folder in parent.glob(f"{name}-*") if shape.fullmatch(folder.name) and folder.is_dir())


def _report_old_sets(folder: Path, name: str, key: dict[str, Any]) -> None:
    """Log the sets that this one replaces: the same options, from other files or made by another version.

    Sets derived from them (with "of" in their key, such as splits) are included.
    """

    def options(of: dict[str, Any]) -> dict[str, Any]:
        return {option: value for option, value in of.items() if "version" not in option and option not in OF_ORIGIN}

    if "of" in key:
        return
    keys = {}
    for other in sorted(folder.parent.glob("*-*")):
        try:
            keys[other] = _read_meta(other)["key"]
        except DamagedError:
            continue
    siblings = set(_siblings(folder.parent, name)) - {folder}
    old = [other for other in keys if other in siblings and options(keys[other]) == options(key)]
    old += [other for other in keys if keys[other].get("of") in {replaced.name for replaced in old}]
    if old:
        size = sum(file.stat().st_size for other in old for file in other.iterdir())
        log.info(
            "Sets made from earlier files or by another version, which can be deleted (%s): %s",
            size_text(size),
            ", ".join(str(other) for other in old),
        )


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
