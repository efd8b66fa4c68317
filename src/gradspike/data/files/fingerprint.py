"""Detects changes to the files of a data set since it was prepared, without listing all of them.

A fingerprint covers the name, size and mark of every file. Listing a million files takes too long when opening a
prepared set, so the fingerprint is cached with a cheap stamp: size and times of an archive, or modification
times of the folders down to the classes. These times change when a file is added, removed or renamed. Small folders are
always read in full. `refresh` reads everything.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from gradspike.data.files.files import Files
from gradspike.json_text import to_json

LISTING_VERSION = 6
"""Increase when the listing of files or their naming changes, to invalidate cached fingerprints."""
FEW = 20_000
"""Folders with up to this many files are always read in full (about 0.1 s)."""
LEVELS = 4


def fingerprint(files: Files, data_dir: Path, refresh: bool = False) -> str:
    """The fingerprint of `files`, from the cache in data_dir/prepared if nothing has changed."""
    record = _record(files.path, files.root, data_dir)
    stamp = _stamp(files)
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        current = known["stamp"] == stamp and known["listing_version"] == LISTING_VERSION
        if current and not refresh and (files.kind != "folder" or known["files"] > FEW):
            return str(known["fingerprint"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    found = {
        "stamp": stamp,
        "listing_version": LISTING_VERSION,
        "files": len(files.entries()),
        "fingerprint": files.fingerprint(),
    }
    try:
        record.parent.mkdir(exist_ok=True)
        temporary = record.with_suffix(f".{os.getpid()}")
        temporary.write_text(to_json(found), encoding="utf-8")
        temporary.replace(record)
    except OSError:
        pass  # a read-only data_dir works, just slower
    return str(found["fingerprint"])


def last_fingerprint(path: Path, data_dir: Path) -> str | None:
    """The fingerprint of a folder or archive when last opened with this data_dir, or None if it never was."""
    try:
        return str(json.loads(_record(path, "", data_dir).read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _record(path: Path, root: str, data_dir: Path) -> Path:
    name = hashlib.sha256(f"{os.path.realpath(path)}\0{root}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return data_dir / "prepared" / f".source-{name}.json"


def _stamp(files: Files) -> str:
    if files.kind != "folder":
        status = files.path.stat()
        # The time of change too: an archive copied over another one may keep size and modification time (cp -p).
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    digest = hashlib.sha256()
    level = [files.path / files.root]
    for depth in range(LEVELS):
        below = []
        for folder in level:
            digest.update(f"{folder}\0{folder.stat().st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
            if depth < LEVELS - 1:
                below += _folders_in(folder)
        level = sorted(below)
    return digest.hexdigest()


def _folders_in(folder: Path) -> list[Path]:
    """The subfolders of a folder. Assumes none if its first hundred items are all files."""
    found = []
    with os.scandir(folder) as listing:
        for count, item in enumerate(listing):
            if item.is_dir():
                found.append(Path(item.path))
            elif count > 100 and not found:
                break
    return found
