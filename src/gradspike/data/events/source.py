"""What all data sets of event recordings in files have in common: find, list, prepare, split, open."""

from __future__ import annotations

import csv
import logging
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.clips import Clip, ClipFrames, Reader
from gradspike.data.events.ready_frames import READY
from gradspike.data.events.recordings import READERS, read_recording
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.download import download
from gradspike.data.files.files import ARCHIVES, Files, MissingSourceError
from gradspike.data.files.fingerprint import fingerprint
from gradspike.data.files.source import FileSource
from gradspike.data.options.events import RecordingsConfig
from gradspike.data.prepared.cache import Prepared, find_prepared, prepared
from gradspike.data.prepared.parts import Names, build_in_parts, encode_names, refuse_bad_files
from gradspike.data.source import SPLITS, UNUSED, Samples, hold_out
from gradspike.errors import UserError

log = logging.getLogger(__name__)

VERSION = 1
VAL_SEED = 2017
RecordingsT = TypeVar("RecordingsT", bound=RecordingsConfig)


class RemoteFile(NamedTuple):
    """Where a file is to be had, its MD5, and what it is called here."""

    url: str
    md5: str
    name: str


@dataclass(frozen=True)
class Listing:
    """The recordings of a data set as found, sorted by name; the classes by label; what cannot be one."""

    clips: tuple[Clip, ...]
    class_names: tuple[str, ...]
    bad: tuple[BadFile, ...] = ()


class EventSource(FileSource[RecordingsT]):
    """Frames from recordings in files. A data set says how its files are named, and where they are to be had."""

    reader: ClassVar[tuple[Reader]] = (read_recording,)
    """What reads a file; a tuple of one, since a function would become a method."""
    endings: ClassVar[tuple[str, ...]] = tuple(READERS)

    @property
    @abstractmethod
    def sensor(self) -> tuple[int, int]:
        """Width and height of the sensor in pixels."""

    @abstractmethod
    def list_recordings(self, places: Sequence[Files]) -> Listing:
        """The recordings in some folders or archives. Raises UserError where they make no data set."""

    def remote_files(self) -> tuple[RemoteFile, ...]:
        """What `download=true` fetches; nothing where there is no place to fetch it from."""
        return ()

    def load(self) -> Samples:
        """Open the frames for these options; decode the recordings first where that has not been done."""
        frames = self.load_frames()
        refuse_bad_files([BadFile(*file) for file in frames.facts["bad"]], self.config.on_bad_file)
        self.check_classes(frames.facts["class_names"], frames.facts["source"])
        split = self.load_split(frames)
        arrays, class_names = frames.arrays, tuple(frames.facts["class_names"])
        names = Names(arrays["names"])
        return Samples(arrays["inputs"], arrays["labels"], split, class_names=class_names, names=names)

    def load_frames(self) -> Prepared:
        """Open the prepared frames (arrays inputs, labels, listed, group, rank, begin_us, events, names)."""
        config = self.config
        key: dict[str, Any] = {
            "version": VERSION,
            "time_steps": self.time_steps,
            "image_size": config.image_size,
            "bins": config.bins,
            "binning": config.binning,
            "resize": config.resize,
            "window_ms": config.window_ms,
            "stride_ms": config.stride_ms,
            "sensor": list(self.sensor),
            **self.key_of_files(),
        }
        try:
            files = self.files()
        except MissingSourceError:
            opened = find_prepared(self.data_dir, config.name, {**key, "source": None})
            if opened is None:
                raise
            log.info("The recordings of '%s' are gone; what was made of them is used: %s", config.name, opened.folder)
            return opened
        key["source"] = fingerprint(files, self.data_dir, refresh=self.refresh)
        return prepared(self.data_dir, config.name, key, lambda folder: self._build(files, folder))

    def key_of_files(self) -> dict[str, Any]:
        """Options of this data set that shape its frames."""
        return {}

    def download(self) -> None:
        """Fetch the recordings into a folder of data_dir, which is there when all of them are. Raises UserError."""
        remote = self.remote_files()
        if not remote:
            super().download()
            return
        folder = self.data_dir / self.usual_names[0]
        arriving = folder.with_name(f".{folder.name}.download")
        arriving.mkdir(exist_ok=True)
        for file in remote:
            if not (arriving / file.name).is_file():
                download(file.url, file.md5, arriving, file.name)
        arriving.rename(folder)

    def load_split(self, frames: Prepared) -> NDArray[np.uint8]:
        """Each sample's split; recorded by file name, as split.csv, in a small prepared set of its own."""
        config = self.config
        key = {"of": frames.folder.name, "version": VERSION, "val_fraction": config.val_fraction, **self.key_of_split()}

        def build(folder: Path) -> dict[str, Any]:
            splits = self.split(frames)
            np.save(folder / "splits.npy", splits)
            with (folder / "split.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                table = csv.writer(file)
                table.writerow(("name", "label", "split"))
                names, labels = Names(frames.arrays["names"]), frames.arrays["labels"]
                for name, label, split in zip(names, labels, splits, strict=True):
                    table.writerow((name, label, SPLITS[split] if split != UNUSED else ""))
            return {SPLITS[split]: int((splits == split).sum()) for split in range(len(SPLITS))}

        splits: NDArray[np.uint8] = prepared(self.data_dir, f"{config.name}-split", key, build).arrays["splits"]
        missing = self._missing_classes(frames, splits)
        if missing:
            raise UserError(
                f"No recording is left for training of the class{'es' if len(missing) > 1 else ''} "
                f"{', '.join(missing)}. Add recordings, or take the class out of all splits and lower dataset.classes."
            )
        return splits

    def key_of_split(self) -> dict[str, Any]:
        """Options of this data set that shape its split alone."""
        return {}

    def split(self, frames: Prepared) -> NDArray[np.uint8]:
        """The split of each sample, uint8 [N]: positions in SPLITS, or UNUSED."""
        return self.hold_out(frames, np.array(frames.arrays["listed"]))

    def hold_out(self, frames: Prepared, splits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Hold validation samples out of the training ones, unless the files have such a split of their own.

        Groups (recordings, unless the data set says otherwise) stay together. Where a class has one, its last windows
        are held out, and windows before them that overlap with them belong to no split.
        """
        if (splits == SPLITS.index("val")).any() or not self.config.val_fraction:
            return splits
        arrays = frames.arrays
        train, group = splits == SPLITS.index("train"), np.asarray(arrays["group"])
        splits = hold_out(np.asarray(arrays["labels"]), splits, self.config.val_fraction, VAL_SEED, group)
        if self.config.window_ms is not None:
            window = round(self.config.window_ms * 1000)
            begin, held_out = np.asarray(arrays["begin_us"]), splits == SPLITS.index("val")
            for divided in np.intersect1d(group[held_out], group[train & ~held_out]):
                first = begin[held_out & (group == divided)].min()
                splits[train & ~held_out & (group == divided) & (begin + window > first)] = UNUSED
        return splits

    def _missing_classes(self, frames: Prepared, splits: NDArray[np.uint8]) -> list[str]:
        trained = np.unique(frames.arrays["labels"][splits == SPLITS.index("train")])
        names = frames.facts["class_names"]
        return [names[label] for label in range(len(names)) if label not in trained]

    def _build(self, files: Files, folder: Path) -> dict[str, Any]:
        config = self.config
        with recordings_within(files, (*self.endings, READY), folder) as places:
            listing = self.list_recordings(places)
            self.check_classes(listing.class_names, files.shown())
            missing = missing_in_splits(listing, files)
            refuse_bad_files([*listing.bad, *missing], config.on_bad_file)
            clips = [replace(clip, number=number) for number, clip in enumerate(listing.clips)]
            work = self.work()
            bad = build_in_parts(
                folder,
                clips,
                work,
                part_size=_part_size(clips),
                workers=self.prepare_workers,
                title=f"preparing {config.name}",
                on_bad_file=config.on_bad_file,
                bytes_per_item=0 if config.window_ms else 2 * self.time_steps * config.image_size**2,
            )
        largest = int(np.load(folder / "labels.npy").max())
        if largest >= len(listing.class_names):
            last = len(listing.class_names) - 1
            raise UserError(f"{files.shown()}: has the label {largest}; labels go up to {last}.")
        bad = (*listing.bad, *missing, *bad)
        for file in bad:
            log.warning("Left out: %s: %s", file.path, file.problem)
        return {
            **describe_samples(folder, clips, config.window_ms is not None),
            "source": files.shown(),
            "class_names": list(listing.class_names),
            "bad": [[file.path, file.problem] for file in bad],
        }

    def work(self) -> ClipFrames:
        """What makes frames of a recording, with these options."""
        config = self.config
        window = None if config.window_ms is None else round(config.window_ms * 1000)
        return ClipFrames(
            read=self.reader[0],
            sensor=self.sensor,
            time_steps=self.time_steps,
            image_size=config.image_size,
            bins=config.bins,
            binning=config.binning,
            resize=config.resize,
            window_us=window,
            stride_us=window if config.stride_ms is None else round(config.stride_ms * 1000),
        )


def _part_size(clips: Sequence[Clip]) -> int:
    """Clips of about 8 MB of files; parts of one file stay together, since each of them decodes it."""
    if any(clip.begin_us is not None for clip in clips):
        return 24
    mean: float = sum(clip.entry.size for clip in clips) / max(len(clips), 1)
    return max(1, min(256, round(8e6 / max(mean, 1))))


def describe_samples(folder: Path, clips: Sequence[Clip], windows: bool) -> dict[str, Any]:
    """Write what follows from each sample's clip: its name, the split it was found in, its group, its rank."""
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
    """Seconds with as many decimals as they need, at least one: "0.0", "12.25"."""
    whole, rest = divmod(microseconds, 1_000_000)
    return f"{whole}.{f'{rest:06d}'.rstrip('0') or '0'}"


@contextmanager
def recordings_within(files: Files, endings: Sequence[str], scratch: Path) -> Iterator[list[Files]]:
    """The folder or archive itself; or, where it holds archives instead of recordings, those (as CIFAR10-DVS comes)."""
    with ExitStack() as stack:
        if any(entry.name.lower().endswith(tuple(endings)) for entry in files.entries()):
            yield [stack.enter_context(files.readable(scratch))]
            return
        places = []
        for number, entry in enumerate(entry for entry in files.entries() if entry.name.lower().endswith(ARCHIVES)):
            place = scratch / f"archive-{number}"
            place.mkdir(exist_ok=True)
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            if files.kind == "folder":
                archive = Files.open(files.path / files.root / entry.name)
            else:
                inner = place / Path(entry.name).name
                inner.write_bytes(files.read(entry))
                archive = replace(Files.open(inner), shown_as=Path(files.shown(entry.name)))
            places.append(stack.enter_context(archive.readable(place)))
        if not places:
            raise UserError(f"{files.shown()}: holds no recordings ({', '.join(endings)}) and no archives of them.")
        yield places


def missing_in_splits(listing: Listing, files: Files) -> list[BadFile]:
    """Classes that one split has and another has not."""
    found = {(clip.split, clip.label) for clip in listing.clips if clip.label >= 0}
    return [
        BadFile(files.shown(), f"the class {name} has no recording in the {split} split")
        for split in SPLITS
        if any(of == split for of, _ in found)
        for label, name in enumerate(listing.class_names)
        if (split, label) not in found
    ]
