"""Prepared arrays on disk: built once, opened in milliseconds, never stale, never partially written.

A prepared set is a folder `data_dir/prepared/<name>-<hash>`. The hash covers everything that affects the content
(files, options, code version), so a changed option uses another folder instead of old data.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradspike.data.prepared.digests import DamagedError
from gradspike.data.prepared.disk import free_space
from gradspike.data.prepared.origin import report_old_sets
from gradspike.data.prepared.parts import PARTS
from gradspike.data.prepared.stored import Prepared, canonical, folder_of, open_stored, write_meta
from gradspike.errors import UserError
from gradspike.exhausted import is_full
from gradspike.locks import Taken, lock_if_possible

log = logging.getLogger(__name__)


def prepared(
    data_dir: Path,
    name: str,
    key: Mapping[str, Any],
    build: Callable[[Path], Mapping[str, Any]],
    level: int = logging.INFO,
) -> Prepared:
    """Open the set `name` with this `key` (JSON values), building it first if it is missing or damaged.

    `build(folder)` writes arrays as folder/<array>.npy and returns facts for meta.json. `folder` is temporary and is
    renamed when complete. A second process waits for the first and opens its result. An interrupted build in parts (see
    `parts`) continues where it stopped. level: logging level of the message that a set is being prepared. Raises
    UserError if the disk fails.
    """
    key = canonical(key)
    folder = folder_of(data_dir, name, key)
    try:
        return open_stored(folder, key)
    except DamagedError:
        pass  # checked again, and reported, under the lock
    try:
        folder.parent.mkdir(exist_ok=True)
        with _only_process(folder.parent / f".{folder.name}.lock", name):
            return _open_or_build(folder, name, key, build, level)
    except OSError as error:
        if is_full(error):
            kept = f" Finished parts are kept in {_partial(folder)}." if _partial(folder).is_dir() else ""
            reason = error.strerror or "No space left on device"
            raise UserError(
                f"Preparing '{name}' in {folder.parent} failed: {reason} ({free_space(folder.parent)}).{kept} "
                "Free some space and start again, or choose another folder with data_dir=..."
            ) from error
        raise UserError(f"Preparing '{name}' in {folder.parent} failed: {error.strerror or error}.") from error


@contextmanager
def _only_process(lock: Path, name: str) -> Iterator[None]:
    """Hold a lock; log a message if another process holds it. The system releases the lock when a process dies."""
    risk = "Do not prepare the same data set with two processes at once."
    with lock.open("a", encoding="utf-8") as file:
        try:
            lock_if_possible(file, risk)
        except Taken:
            log.info("Another process is preparing '%s'. Waiting for it.", name)
            lock_if_possible(file, risk, wait=True)
        yield


def _open_or_build(
    folder: Path, name: str, key: dict[str, Any], build: Callable[[Path], Mapping[str, Any]], level: int
) -> Prepared:
    """Open or build the set. Only one process at a time may call this."""
    partial = _partial(folder)
    continues = (partial / PARTS).is_dir()
    try:
        return open_stored(folder, key)
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
        write_meta(partial, key, facts)
        shutil.rmtree(partial / PARTS, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        if not (partial / PARTS).is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        raise
    opened = open_stored(folder, key)
    report_old_sets(opened, name, key)
    return opened


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")
