"""Lists the files in a folder, zip or tar file, and keeps archives open for reading."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.leavings import Leavings, first_leaving, is_leaving
from gradspike.data.files.names import member_name
from gradspike.errors import UserError

BLOCK = tarfile.BLOCKSIZE
BOMB_BYTES = 64 * 2**20
BOMB_RATIO = 200
"""An archive member that exceeds both limits is not data: pictures and events compress by a factor of 20 at most."""


@dataclass(frozen=True)
class Entry:
    """A file: its `name` (parts joined by "/"), its size in bytes, and a mark that changes with its content.

    mark: CRC-32 for a zip member, otherwise the modification time in nanoseconds. offset: position of the content in a
    tar file.
    """

    name: str
    size: int
    mark: int
    offset: int = 0


@dataclass(frozen=True)
class Listed:
    """The files in a container, the bad files, and the number of ignored files by name."""

    entries: tuple[Entry, ...]
    bad: tuple[BadFile, ...]
    ignored: dict[str, int]


def refuse_bomb(unpacked: int, packed: int) -> None:
    """Raise ValueError if the unpacked size in an archive's header is implausible for its packed size."""
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
        raise ValueError(
            f"would unpack from {packed:,} to {unpacked:,} bytes, as no data do; if it is what you expect, unpack it "
            "yourself"
        )


def refuse_bomb_inside(content: bytes) -> None:
    """Apply `refuse_bomb` to a file that is itself a zip file (.npz, .pt). Raises ValueError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except zipfile.BadZipFile:
        return  # the file's reader reports the reason
    refuse_bomb(unpacked, len(content))


def _unsafe(name: str) -> bool:
    """Whether a member's name points outside the archive. Backslashes are ordinary characters: see `member_name`."""
    return name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:[/\\]", name) is not None


def list_folder(path: Path, root: str) -> Listed:
    """List the files of a folder below `root` ("" or "folder/"). Follows links."""
    entries: list[Entry] = []
    bad: list[BadFile] = []
    leavings = Leavings()
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [(root.rstrip("/"), ())]
    while pending:
        below, around = pending.pop()
        folder = path / below
        status = folder.stat()
        place = (status.st_dev, status.st_ino)
        if place in around:  # a link to one of its parent folders
            continue
        with os.scandir(folder) as listing:
            for item in listing:
                name = f"{below}/{item.name}" if below else item.name
                if is_leaving(item.name):
                    leavings.add(name)
                    continue
                if item.is_dir():
                    pending.append((name, (*around, place)))
                elif item.is_file():
                    facts = item.stat()
                    entries.append(Entry(name, facts.st_size, facts.st_mtime_ns))
                elif item.is_symlink() and not os.path.exists(item.path):
                    entries.append(Entry(name, 0, 0))  # reading the file will report the reason
                else:
                    bad.append(BadFile(str(path / name), "is a pipe, a socket or a device"))
    return Listed(tuple(entries), tuple(bad), leavings.counts())


def list_zip(path: Path, shown: str) -> Listed:
    """List the members of a zip file. shown: its path for messages. Raises UserError if it is encrypted."""
    entries: dict[str, Entry] = {}
    bad: dict[str, BadFile] = {}
    leavings = Leavings()
    for info in open_zip(path).infolist():
        if info.is_dir() or _is_ignored(info.filename, leavings):
            continue
        if info.flag_bits & 1:
            raise UserError(f"{shown} is encrypted (for example {info.filename}): unpack it with its password first.")
        _enter(shown, Entry(info.filename, info.file_size, info.CRC), entries, bad)
    return Listed(tuple(entries.values()), tuple(bad.values()), leavings.counts())


def list_tar(path: Path, shown: str, compressed: bool) -> Listed:
    """List the members of a tar file. Raises tarfile.TarError if it is truncated."""
    entries: dict[str, Entry] = {}
    bad: dict[str, BadFile] = {}
    leavings = Leavings()
    last: tarfile.TarInfo | None = None
    for info in open_tar(path):
        name = info.name.removeprefix("./")
        last = info
        if compressed:
            try:
                refuse_bomb(info.size, path.stat().st_size)
            except ValueError as error:
                raise UserError(f"{shown}: its member {name} {error}.") from error
        if info.isdir() or _is_ignored(name, leavings):
            continue
        if not info.isreg() or info.issparse():
            what = "sparse file" if info.issparse() else "link or a device"
            bad[name] = BadFile(shown + "/" + name, f"is a {what} inside an archive")
            continue
        _enter(shown, Entry(info.name, info.size, int(info.mtime * 1e9), info.offset_data), entries, bad)
    if last is not None and not compressed and not last.issparse():
        # A tar file truncated between two members reads like a shorter one. Only its final zero block is missing.
        file = open_plain(path)
        file.seek(last.offset_data + (-(-last.size // BLOCK) * BLOCK if last.isreg() else 0))
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError("it ends before its end mark")
    return Listed(tuple(entries.values()), tuple(bad.values()), leavings.counts())


def _is_ignored(name: str, leavings: Leavings) -> bool:
    parts = PurePosixPath(name).parts
    place = first_leaving(parts)
    if place is not None:
        leavings.add("/".join(parts[: place + 1]))
    return place is not None


def _enter(shown: str, entry: Entry, entries: dict[str, Entry], bad: dict[str, BadFile]) -> None:
    """Add an archive member to the entries, or to the bad files if its name is invalid."""
    if _unsafe(entry.name):
        bad[entry.name] = BadFile(f"{shown}/{entry.name}", "has a name that points outside the archive")
    elif entry.name in entries or entry.name in bad:
        entries.pop(entry.name, None)
        bad[entry.name] = BadFile(f"{shown}/{entry.name}", "is in the archive more than once")
    else:
        entries[entry.name] = entry


Opened = tuple[Path, int, int, int]


def _now(path: Path) -> Opened:
    """Cache key of an open file. A changed file gets a new key, as does a forked worker: handles must not be shared."""
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns, os.getpid()


@lru_cache(maxsize=4)
def _zip(*opened: *Opened) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(opened[0])
    for info in archive.infolist():
        info.filename = member_name(info)
    archive.NameToInfo = {info.filename: info for info in archive.infolist()}
    return archive


@lru_cache(maxsize=4)
def _tar(*opened: *Opened) -> tarfile.TarFile:
    return tarfile.open(opened[0], encoding="utf-8")  # the default encoding depends on the locale


@lru_cache(maxsize=4)
def _plain(*opened: *Opened) -> IO[bytes]:
    return opened[0].open("rb")


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file and keep it open, because its directory is slow to read."""
    return _zip(*_now(path))


def open_tar(path: Path) -> tarfile.TarFile:
    """Open a tar file, compressed or not, and keep it open."""
    return _tar(*_now(path))


def open_plain(path: Path) -> IO[bytes]:
    """Open a file and keep it open."""
    return _plain(*_now(path))


def opener(path: Path) -> Any:
    """The function that opens a file for decompressed reading, selected by the file's first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
    openers = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    return next((opener for magic, opener in openers.items() if start.startswith(magic)), open)
