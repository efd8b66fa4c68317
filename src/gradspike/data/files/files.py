"""One view on the files of a data set, whether they lie in a folder, a zip or a tar: names, bytes, fingerprint.

Nothing is ever unpacked under the names that stand in an archive.
"""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import (
    Entry,
    list_folder,
    list_tar,
    list_zip,
    open_plain,
    open_tar,
    open_zip,
    opener,
)
from gradspike.data.source import SPLITS, Split
from gradspike.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SPLIT_FOLDERS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "Train", "training"),
    "val": ("val", "Val", "valid", "validation"),
    "test": ("test", "Test", "testing"),
}


class MissingSourceError(UserError):
    """The files of a data set are not there."""


@dataclass(frozen=True)
class Files:
    """The files of a folder or an archive below `root` ("" or "folder/"). Picklable; workers open it anew.

    `shown_as` is how the path is told to the user where it is not the one that is read.
    """

    path: Path
    kind: Literal["folder", "zip", "tar"]
    root: str = ""
    shown_as: Path | None = None
    compressed: bool = field(default=False)

    @classmethod
    def open(cls, path: str | Path) -> Files:
        """Look at a folder or an archive. Raises UserError where it is neither, or cannot be read."""
        path = Path(path).expanduser()
        if path.is_dir():
            return cls(path, "folder")
        if not path.exists():
            raise MissingSourceError(f"{path}: there is no such file or folder.")
        try:
            if zipfile.is_zipfile(path):
                return cls(path, "zip")
            if tarfile.is_tarfile(path):
                return cls(path, "tar", compressed=opener(path) is not open)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
        raise UserError(
            f"{path}: is not a folder, and cannot be read as a zip or a tar file. If it was downloaded, it may be "
            "incomplete: compare its size, or download it again."
        )

    @cached_property
    def _listed(self) -> tuple[tuple[Entry, ...], tuple[BadFile, ...]]:
        try:
            shown = str(self.shown_as or self.path)
            match self.kind:
                case "folder":
                    entries, bad = list_folder(self.path, self.root)
                case "zip":
                    entries, bad = list_zip(self.path, shown)
                case "tar":
                    entries, bad = list_tar(self.path, shown, self.compressed)
        except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, lzma.LZMAError) as error:
            raise UserError(f"{self.shown()}: cannot be read, it is damaged or incomplete ({error}).") from error
        entries = [
            replace(entry, name=entry.name[len(self.root) :]) for entry in entries if entry.name.startswith(self.root)
        ]
        return tuple(sorted(entries, key=lambda entry: entry.name)), tuple(bad)

    def entries(self) -> tuple[Entry, ...]:
        """All files but the ignored ones, sorted by name, on every file system alike. Raises UserError."""
        return self._listed[0]

    def bad(self) -> tuple[BadFile, ...]:
        """Members of an archive that are left out: unsafe or repeated names, links."""
        return self._listed[1]

    def below(self, folder: str) -> Files:
        """The files of one folder, their names without it."""
        return replace(self, root=f"{self.root}{folder.rstrip('/')}/" if folder else self.root)

    def within_single_folder(self, *wanted: str) -> Files:
        """The files without the folders around all of them (as archives often have), up to one of the `wanted`."""
        files = self
        while True:
            tops = {entry.name.partition("/")[0] for entry in files.entries()}
            if len(tops) != 1 or tops & set(wanted) or not all("/" in entry.name for entry in files.entries()):
                return files
            files = files.below(tops.pop())

    def read(self, entry: Entry) -> bytes:
        """The bytes of a file. Raises OSError or ValueError, with a reason that can be shown, where that fails."""
        name = self.root + entry.name
        if self.kind == "folder":
            return (self.path / name).read_bytes()
        if self.kind == "tar" and not self.compressed:
            file = open_plain(self.path)
            file.seek(entry.offset)
            content = file.read(entry.size)
            if len(content) != entry.size:
                raise ValueError("is cut off")
            return content
        try:
            if self.kind == "zip":
                return open_zip(self.path).read(name)
            member = open_tar(self.path).extractfile(name)
            assert member is not None
            return member.read()
        except Exception as error:  # zlib, lzma, zipfile, tarfile and struct each have their own for a damaged member
            raise ValueError(f"cannot be unpacked ({str(error) or type(error).__name__})") from error

    def find(self, name: str) -> Entry | None:
        """The file of that name, if there is one."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.entries()}

    def shown(self, name: str = "") -> str:
        """A file's path as the user finds it: `data/archive.zip/train/cat/1.png`."""
        return str((self.shown_as or self.path) / PurePosixPath(self.root + name))

    def fingerprint(self) -> str:
        """A hash of all names, sizes and marks; it changes when a file does. It reads names, not contents."""
        digest = hashlib.sha256()
        for entry in self.entries():
            digest.update(f"{entry.name}\0{entry.size}\0{entry.mark}\n".encode("utf-8", "surrogateescape"))
        for file in self.bad():
            digest.update(f"{Path(file.path).name}\0{file.problem}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @contextmanager
    def readable(self, scratch: Path) -> Iterator[Files]:
        """These files for reading many of them in any order: a compressed tar is decompressed into `scratch` once."""
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
        """Without the listing: entries travel by themselves, and a million of them should not travel with each part."""
        kept = ("path", "kind", "root", "shown_as", "compressed")
        return {name: getattr(self, name) for name in kept}


@dataclass(frozen=True)
class ClassListing:
    """`split/class/...` as found: entries by split and class (both sorted), and what could not be placed."""

    files: Files
    splits: dict[Split, dict[str, tuple[Entry, ...]]]
    bad: tuple[BadFile, ...]

    def class_names(self) -> tuple[str, ...]:
        """The classes of all splits, sorted."""
        return tuple(sorted({name for classes in self.splits.values() for name in classes}))


def listing_by_class(
    files: Files, extensions: Sequence[str], folders: Mapping[Split, Sequence[str]] = SPLIT_FOLDERS
) -> ClassListing:
    """Find `split/class/name.ext`, whatever single folders stand around it, and folders between class and name.

    extensions: lower case with their dot. Files beside the split folders (README, LICENSE) are nobody's business; in
    them, a file of another kind or in no class folder is a bad file. Splits that are not there are not in the result.
    """
    names = [name for wanted in folders.values() for name in wanted]
    files = files.within_single_folder(*names)
    split_of = {name: split for split, wanted in folders.items() for name in wanted}
    found: dict[Split, dict[str, list[Entry]]] = {}
    bad = list(files.bad())
    for entry in files.entries():
        top, *inner = entry.name.split("/")
        if top not in split_of or not inner:
            continue
        if len(inner) == 1:
            bad.append(BadFile(files.shown(entry.name), "stands in no class folder"))
        elif not entry.name.lower().endswith(tuple(extensions)):
            bad.append(BadFile(files.shown(entry.name), f"is of another kind than {', '.join(extensions)}"))
        else:
            found.setdefault(split_of[top], {}).setdefault(inner[0], []).append(entry)
    ordered: dict[Split, dict[str, tuple[Entry, ...]]] = {
        split: {name: tuple(found[split][name]) for name in sorted(found[split])} for split in SPLITS if split in found
    }
    return ClassListing(files, ordered, tuple(bad))


def find_source(source: str | None, data_dir: Path, usual_names: Sequence[str], what: str, put: str) -> Files:
    """The files of a data set: `source`, or the first of its `usual_names` that exists in data_dir.

    Raises UserError that says which names were looked for and what to `put` there ("the official download ...").
    """
    if source is not None:
        return Files.open(source)
    for name in usual_names:
        if (data_dir / name).exists():
            return Files.open(data_dir / name)
    every = [name for name in usual_names if all(name + ending in usual_names for ending in ARCHIVES)]
    others = [name for name in usual_names if not any(name.startswith(stem) for stem in every)]
    looked_for = [*others, *(f"{name} (a folder, or {name}.zip, .tar, ...)" for name in every)]
    raise MissingSourceError(
        f"{what} was not found in data_dir={data_dir}.\n"
        f"  Looked for: {', '.join(looked_for)}\n"
        f"  Put there: {put}\n"
        f"  Or name the folder or archive, wherever it lies: dataset.source=<path>. (data_dir itself must be writable: "
        "the prepared set is kept there.)"
    )
