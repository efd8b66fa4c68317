"""Lists the files in a folder, zip or tar file.

The standard library keeps about a kilobyte for each member of an open archive, a gigabyte for a million images. So
archives are closed once they are listed, and `members` reads a member at its place, without the archive's directory.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.leavings import Leavings, first_leaving, is_leaving
from gradspike.data.files.names import member_name, plain_name
from gradspike.errors import UserError

BLOCK = tarfile.BLOCKSIZE
BOMB_BYTES = 64 * 2**20
BOMB_RATIO = 200
"""An archive member that exceeds both limits is not data: images and events compress by a factor of 20 at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its `name` (parts joined by "/"), its size in bytes, and a mark that changes with its content.

    mark: CRC-32 for a zip member, otherwise the modification time in nanoseconds. offset: position in the archive, of
    the content in an unpacked tar file, of the member's header in a zip file.
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


class Implausible(ValueError):
    """A member that would unpack to far more bytes than any data."""


def refuse_bomb(unpacked: int, packed: int) -> None:
    """Raise Implausible if the unpacked size in an archive's header is implausible for its packed size."""
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
        raise Implausible(
            f"would unpack from {packed:,} to {unpacked:,} bytes, as an archive made to fill a disk does; if you "
            "trust it, unpack it yourself"
        )


def refuse_bomb_inside(content: bytes) -> None:
    """Apply `refuse_bomb` to a file that is itself a zip file (.npz, .pt). Raises Implausible."""
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
    for info in _zip_members(path):
        name = member_name(info)
        if name.endswith("/") or _is_ignored(name, leavings):
            continue
        if info.flag_bits & 1:
            raise UserError(f"{shown} is encrypted (for example {name}): unpack it with its password first.")
        _enter(shown, Entry(name, info.file_size, info.CRC, info.header_offset), entries, bad)
    return Listed(tuple(entries.values()), tuple(bad.values()), leavings.counts())


def list_tar(path: Path, shown: str, compressed: bool) -> Listed:
    """List the members of a tar file. Raises tarfile.TarError if it is truncated."""
    entries: dict[str, Entry] = {}
    bad: dict[str, BadFile] = {}
    leavings = Leavings()
    last: tarfile.TarInfo | None = None
    packed = path.stat().st_size
    for info in _tar_members(path):
        name = plain_name(info.name)
        last = info
        if compressed:
            try:
                refuse_bomb(info.size, packed)
            except Implausible as error:
                raise UserError(f"{shown}: its member {name} {error}.") from error
        if info.isdir() or _is_ignored(name, leavings):
            continue
        if not info.isreg() or info.issparse():
            what = "sparse file" if info.issparse() else "link or a device"
            bad[name] = BadFile(shown + "/" + name, f"is a {what} inside an archive")
            continue
        _enter(shown, Entry(name, info.size, int(info.mtime * 1e9), info.offset_data), entries, bad)
    if last is not None and not compressed and not last.issparse():
        # A tar file truncated between two members reads like a shorter one. Only its final zero block is missing.
        with path.open("rb") as file:
            file.seek(last.offset_data + (-(-last.size // BLOCK) * BLOCK if last.isreg() else 0))
            if file.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError("its end marker is missing")
    return Listed(tuple(entries.values()), tuple(bad.values()), leavings.counts())


def _zip_members(path: Path) -> Iterator[zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        archive.NameToInfo.clear()
        archive.filelist.reverse()
        while archive.filelist:
            yield archive.filelist.pop()  # so that it and its Entry are not kept at the same time


def _tar_members(path: Path) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(path, encoding="utf-8") as archive:  # the default encoding depends on the locale
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            yield info


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
