"""The recordings of a data set: download locations, file search, and metadata of each sample."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradspike.data.events.clips import Clip
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.companions import left_out
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.files.unread import unread
from gradspike.data.prepared.parts import encode_names
from gradspike.data.source import SPLITS
from gradspike.errors import UserError
from gradspike.shown import listed


class RemoteFile(NamedTuple):
    """A file to download: URL, MD5, and local file name."""

    url: str
    md5: str
    name: str


@dataclass(frozen=True)
class Listing:
    """The recordings of a data set sorted by name, the class names by label, and the bad files.

    labels: paths of the label files.
    """

    clips: tuple[Clip, ...]
    class_names: tuple[str, ...]
    bad: tuple[BadFile, ...] = ()
    labels: tuple[str, ...] = ()

    def left_out(self, files: Files, places: Sequence[Files]) -> dict[str, int]:
        """Count the files in `files` and `places` that are not recordings of the data set, bad files or label files.

        places: `files` itself, or the archives in it.
        """
        counts: Counter[str] = Counter()
        bad = {file.path for file in self.bad} | set(self.labels)
        by_place: dict[Path, list[Clip]] = {}
        for clip in self.clips:
            by_place.setdefault(clip.files.path, []).append(clip)
        for place in places:
            own = by_place.get(place.path, [])
            inside = own[0].files.root[len(place.root) :] if own else ""
            counts.update(left_out(place, {inside + clip.entry.name for clip in own}, bad, inside))
            if place.shown() != files.shown():
                counts.update(place.ignored())
        if places[0].shown() != files.shown():
            counts.update(left_out(files, {entry.name for entry in files.entries() if is_archive(entry)}, bad))
        return dict(sorted(counts.items()))


def is_archive(entry: Entry) -> bool:
    """Whether a file name is that of an archive."""
    return entry.name.lower().endswith(ARCHIVES)


@contextmanager
def recordings_within(files: Files, endings: Sequence[str], scratch: Path) -> Iterator[list[Files]]:
    """The folder or archive itself. If it contains archives and no recordings (as in CIFAR10-DVS), the archives."""
    with ExitStack() as stack:
        if any(entry.name.lower().endswith(tuple(endings)) for entry in files.entries()):
            yield [stack.enter_context(files.readable(scratch))]
            return
        places = []
        for number, entry in enumerate(filter(is_archive, files.entries())):
            place = scratch / f"archive-{number}"
            place.mkdir(exist_ok=True)
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            if files.kind == "folder":
                archive = Files.open(files.path / files.root / entry.name)
            else:
                inner = place / Path(entry.name).name
                inner.write_bytes(_unpacked(files, entry))
                archive = replace(Files.open(inner), shown_as=Path(files.shown(entry.name)))
            places.append(stack.enter_context(archive.readable(place)))
        if not places:
            found = listed(f"{name} ({count:,})" for name, count in left_out(files, (), ()).items())
            raise UserError(
                f"{files.shown()}: contains neither recordings ({', '.join(endings)}) nor archives of recordings. "
                f"Found: {found or 'nothing'}.{unread(files)}"
            )
        yield places


def _unpacked(files: Files, entry: Entry) -> bytes:
    try:
        return files.read(entry, most=math.inf)
    except (OSError, ValueError) as error:
        raise UserError(f"{files.shown(entry.name)} {error}.") from error


def missing_in_splits(listing: Listing, files: Files) -> list[BadFile]:
    """Classes that are in one split but missing from another."""
    found = {(clip.split, clip.label) for clip in listing.clips if clip.label >= 0}
    return [
        BadFile(files.shown(), f"the class {name} has no recording in the {split} split")
        for split in SPLITS
        if any(of == split for of, _ in found)
        for label, name in enumerate(listing.class_names)
        if (split, label) not in found
    ]


def describe_samples(folder: Path, clips: Sequence[Clip], windows: bool) -> dict[str, Any]:
    """Write the arrays derived from each sample's clip: names, listed (split), group, rank. Returns counts."""
    number = np.load(folder / "clip.npy")
    begin = np.load(folder / "begin_us.npy")
    timed = windows or any(clip.begin_us is not None for clip in clips)
    names = [
        clips[clip].entry.name + (f"@{seconds(at)}s" if timed else "")
        for clip, at in zip(number.tolist(), begin.tolist(), strict=True)
    ]
    np.save(folder / "names.npy", encode_names(names))
    listed = np.array([SPLITS.index(clip.split) for clip in clips], dtype=np.uint8)
    np.save(folder / "listed.npy", listed[number])
    np.save(folder / "group.npy", np.array([clip.group for clip in clips], dtype=np.int64)[number])
    np.save(folder / "rank.npy", np.array([clip.rank for clip in clips], dtype=np.int64)[number])
    events = np.load(folder / "events.npy")
    samples = {split: int((listed[number] == place).sum()) for place, split in enumerate(SPLITS)}
    sizes = np.bincount([clip.label for clip in clips if clip.label >= 0]).tolist()
    return {
        "recordings": len(np.unique(number)),
        "samples": samples,
        "events": int(events.sum()),
        "class_sizes": sizes,
    }


def seconds(microseconds: int) -> str:
    """Format as seconds with as many decimals as needed, at least one: "0.0", "12.25"."""
    whole, rest = divmod(microseconds, 1_000_000)
    return f"{whole}.{f'{rest:06d}'.rstrip('0') or '0'}"
