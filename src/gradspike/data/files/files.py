"""One interface to the files of a data set in a folder, zip or tar file: names, contents, fingerprint.

Archive members are never unpacked under their own names.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import (
    Entry,
    Implausible,
    Listed,
    list_folder,
    list_tar,
    list_zip,
)
from gradspike.data.files.members import opener, tar_member, zip_member
from gradspike.data.files.other_formats import explained
from gradspike.errors import UserError
from gradspike.exhausted import raise_if_exhausted
from gradspike.shown import counted, expanded

MOST_BYTES = 2**30
"""Size limit for an image, list or pickle; no real one is larger."""
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class MissingSourceError(UserError):
    """The files of a data set do not exist."""


@dataclass(frozen=True)
class Files:
    """The files of a folder or archive below `root` ("" or "folder/"). Picklable; workers reopen it.

    shown_as: the path to show to the user, if it differs from the path that is read.
    """

    path: Path
    kind: Literal["folder", "zip", "tar"]
    root: str = ""
    shown_as: Path | None = None
    compressed: bool = field(default=False)

    @classmethod
    def open(cls, path: str | Path) -> Files:
        """Open a folder or archive. Raises UserError if it is neither or is unreadable."""
        path = expanded(path)
        if path.is_dir():
            return cls(path, "folder")
        if path.is_symlink() and not os.path.exists(path):
            raise MissingSourceError(f"{path} is a link to {os.readlink(path)}, which does not exist.")
        if not os.path.exists(path):
            raise MissingSourceError(f"{path} does not exist.")
        try:
            if zipfile.is_zipfile(path):
                return cls(path, "zip")
            if tarfile.is_tarfile(path):
                return cls(path, "tar", compressed=opener(path) is not open)
            reason = explained(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
        if reason is not None:
            raise UserError(f"{path} {reason}.")
        raise UserError(
            f"{path} is neither a folder nor a readable zip or tar file. A download may be incomplete: compare "
            "its size, or download it again."
        )

    @cached_property
    def _listed(self) -> Listed:
        listed = self._list() if self.kind == "folder" else self._archive
        inside = listed.entries
        if self.root:
            start = len(self.root)
            inside = tuple(
                Entry(entry.name[start:], entry.size, entry.mark, entry.offset)
                for entry in inside
                if entry.name.startswith(self.root)
            )
        if listed.bad and not listed.entries:
            count, first = counted(len(listed.bad), "file"), listed.bad[0]
            raise UserError(
                f"{self.shown()}: none of its {count} can be used: {first.path} {first.problem}"
                + (", ..." if len(listed.bad) > 1 else ".")
            )
        return replace(listed, entries=tuple(sorted(inside, key=attrgetter("name"))))

    @cached_property
    def _archive(self) -> Listed:
        """The whole archive, listed once for all folders in it (see `below`)."""
        return self._list()

    def _list(self) -> Listed:
        try:
            shown = str(self.shown_as or self.path)
            match self.kind:
                case "folder":
                    return list_folder(self.path, self.root)
                case "zip":
                    return list_zip(self.path, shown)
                case "tar":
                    return list_tar(self.path, shown, self.compressed)
        except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, lzma.LZMAError) as error:
            raise_if_exhausted(error)
            raise UserError(f"{self.shown()} cannot be read: it is damaged or incomplete ({error}).") from error

    def entries(self) -> tuple[Entry, ...]:
        """All files that are not ignored, sorted by name on every file system. Raises UserError."""
        return self._listed.entries

    def bad(self) -> tuple[BadFile, ...]:
        """Archive members that cannot be used: unsafe or duplicate names, links."""
        return self._listed.bad

    def ignored(self) -> dict[str, int]:
        """Number of ignored system files and folders by name (see `leavings`)."""
        return self._listed.ignored

    def below(self, folder: str) -> Files:
        """The files in one folder, with names relative to it."""
        inner = replace(self, root=f"{self.root}{folder.rstrip('/')}/" if folder else self.root)
        if self.kind != "folder":
            inner.__dict__["_archive"] = self._archive
        return inner

    def within_single_folder(self, *wanted: str) -> Files:
        """Strip the folders that contain all files, as in many archives. Stops at a `wanted` folder."""
        files = self
        while True:
            tops = {entry.name.partition("/")[0] for entry in files.entries()}
            if len(tops) != 1 or tops & set(wanted) or not all("/" in entry.name for entry in files.entries()):
                return files
            files = files.below(tops.pop())

    def read(self, entry: Entry, most: float = MOST_BYTES) -> bytes:
        """Read a file of up to `most` bytes. Raises OSError or ValueError with a reason for the user."""
        name = self.root + entry.name
        if entry.size > most:
            raise ValueError(f"has {entry.size:,} bytes; the limit is {most:,.0f}")
        if self.kind == "folder":
            return (self.path / name).read_bytes()
        if self.kind == "tar" and not self.compressed:
            return tar_member(self.path, entry, compressed=False)
        try:
            if self.kind == "zip":
                return zip_member(self.path, name, entry)
            return tar_member(self.path, entry, compressed=True)
        except Implausible:
            raise
        except Exception as error:  # zlib, lzma, zipfile and struct raise different errors
            raise_if_exhausted(error)
            raise ValueError(f"cannot be unpacked ({str(error) or type(error).__name__})") from error

    def find(self, name: str) -> Entry | None:
        """The file with this name, or None."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.entries()}

    def shown(self, name: str = "") -> str:
        """The path of a file for messages: `data/archive.zip/train/cat/1.png`."""
        return str((self.shown_as or self.path) / PurePosixPath(self.root + name))

    def fingerprint(self) -> str:
        """Hash of all names, sizes and marks. It detects changed files without reading their contents."""
        digest = hashlib.sha256()
        for entry in self.entries():
            digest.update(f"{entry.name}\0{entry.size}\0{entry.mark}\n".encode("utf-8", "surrogateescape"))
        for file in self.bad():
            digest.update(f"{Path(file.path).name}\0{file.problem}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @contextmanager
    def readable(self, scratch: Path) -> Iterator[Files]:
        """These files with random access. A compressed tar file is first decompressed into `scratch`."""
        if not self.compressed:
            yield self
            return
        plain = scratch / "decompressed.tar"
        if not plain.is_file():
            temporary = plain.with_suffix(".part")
            with opener(self.path)(self.path, "rb") as packed, temporary.open("wb") as file:
                while block := packed.read(1 << 22):
                    file.write(block)
            temporary.rename(plain)
        yield replace(self, path=plain, compressed=False, shown_as=self.shown_as or self.path)
        plain.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the listing, so a million entries are not sent to the workers with each part."""
        kept = ("path", "kind", "root", "shown_as", "compressed")
        return {name: getattr(self, name) for name in kept}
