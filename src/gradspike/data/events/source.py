"""Base class of all data sets of event files: lists, prepares, splits and opens them."""

from __future__ import annotations

import csv
import logging
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gradspike.data.events.clips import Clip, ClipFrames, Reader
from gradspike.data.events.decoded import decoding_lines, describe_decoding, too_small
from gradspike.data.events.listing import (
    Listing,
    RemoteFile,
    describe_samples,
    missing_in_splits,
    recordings_within,
)
from gradspike.data.events.ready_frames import READY
from gradspike.data.events.recording import Recording
from gradspike.data.events.recordings import READERS, read_recording
from gradspike.data.files.download import download
from gradspike.data.files.files import Files
from gradspike.data.options.events import RecordingsConfig
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.file_source import FileSource
from gradspike.data.prepared.parts import PARTS, Names, build_in_parts, refuse_bad_files
from gradspike.data.prepared.stored import Prepared
from gradspike.data.source import SPLITS, UNUSED, Samples, hold_out, untrained
from gradspike.errors import UserError
from gradspike.shown import listed

log = logging.getLogger(__name__)

VERSION = 3
VAL_SEED = 2017
RecordingsT = TypeVar("RecordingsT", bound=RecordingsConfig)


class EventSource(FileSource[RecordingsT]):
    """Frames from recordings in files. Subclasses define the file names and the download URLs."""

    endings: ClassVar[tuple[str, ...]] = tuple(READERS)

    @property
    @abstractmethod
    def sensor(self) -> tuple[int, int]:
        """Width and height of the sensor in pixels."""

    def reader(self) -> Reader:
        """The function that reads a recording."""
        return read_recording

    @abstractmethod
    def list_recordings(self, places: Sequence[Files]) -> Listing:
        """List the recordings in folders or archives. Raises UserError if they do not form a data set."""

    def remote_files(self) -> tuple[RemoteFile, ...]:
        """The files that `dataset.download=true` downloads; empty without a public source."""
        return ()

    def load(self) -> Samples:
        """Open the frames for the current options. Decodes the recordings first if needed."""
        frames = self.load_frames()
        split = self.load_split(frames)
        arrays, class_names = frames.arrays, tuple(frames.facts["class_names"])
        names = Names(arrays["names"])
        return Samples(
            arrays["inputs"], arrays["labels"], split, class_names=class_names, names=names, folder=frames.folder
        )

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
            "on_disorder": config.on_disorder,
            "on_gap": config.on_gap,
            "max_left_out": config.max_left_out,
            "sensor": list(self.sensor),
            **self.key_of_files(),
        }
        return self.open_prepared(config.name, key, self._build)

    def key_of_files(self) -> dict[str, Any]:
        """Options of this data set that affect its frames."""
        return {}

    def download(self) -> None:
        """Download the recordings into a folder of data_dir, created only once complete. Raises UserError."""
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
        """The split of each sample, stored by file name in split.csv of a separate small prepared set."""
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
        if missing := untrained(frames.facts["class_names"], frames.arrays["labels"], splits):
            raise UserError(
                f"No training recording is left for the class{'es' if len(missing) > 1 else ''} "
                f"{listed(missing)}. Add recordings, or remove the class from all splits and lower dataset.classes."
            )
        return splits

    def key_of_split(self) -> dict[str, Any]:
        """Options of this data set that affect only its split."""
        return {}

    def split(self, frames: Prepared) -> NDArray[np.uint8]:
        """The split of each sample, uint8 [N]: index into SPLITS, or UNUSED."""
        return self.hold_out(frames, np.array(frames.arrays["listed"]))

    def hold_out(self, frames: Prepared, splits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Hold out validation samples from the training split, unless the files have a validation split.

        Groups (recordings, unless the data set defines others) stay together. If a class has a single group, its last
        windows are held out, and earlier windows that overlap them are not used.
        """
        if (splits == SPLITS.index("val")).any() or not self.config.val_fraction:
            return splits
        arrays = frames.arrays
        train, group = splits == SPLITS.index("train"), np.asarray(arrays["group"])
        splits = hold_out(np.asarray(arrays["labels"]), splits, self.config.val_fraction, VAL_SEED, group)
        if self.config.window_ms is not None:
            window = round(self.config.window_ms * 1000)
            begin, held_out = np.asarray(arrays["begin_us"]), splits == SPLITS.index("val")
            if held_out.any():
                first = np.full(int(group.max()) + 1, np.iinfo(np.int64).max)  # start of what is held out of each group
                np.minimum.at(first, group[held_out], begin[held_out])
                splits[train & ~held_out & (begin + window > first[group])] = UNUSED
        return splits

    def _build(self, files: Files, folder: Path) -> dict[str, Any]:
        config = self.config
        with recordings_within(files, (*self.endings, READY), folder) as places:
            listing = self.list_recordings(places)
            self.check_classes(listing.class_names, files.shown())
            missing = missing_in_splits(listing, files)
            refuse_bad_files([*listing.bad, *missing], config.on_bad_file)
            left_out = listing.left_out(files, places)
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
        bad = (*listing.bad, *missing, *bad)
        for file in bad:
            log.warning("Left out: %s: %s", file.path, file.problem)
        decoded = describe_decoding(folder, clips)
        try:
            self.check_extent(decoded, files)
        except UserError:
            shutil.rmtree(folder / PARTS)  # nothing left to resume
            raise
        for line in decoding_lines(decoded):
            log.warning("%s.", line)
        return {
            **describe_samples(folder, clips, config.window_ms is not None),
            "decoded": decoded,
            "source": files.shown(),
            "class_names": list(listing.class_names),
            "bad": [[file.path, file.problem] for file in bad],
            "left_out": left_out,
        }

    def check_extent(self, decoded: Mapping[str, Any], files: Files) -> None:
        """Raise UserError if the events occupy only a small part of the sensor."""
        if needed := too_small(decoded, self.sensor):
            columns, rows = decoded["extent"]
            width, height = self.sensor
            raise UserError(
                f"{files.shown()}: all events are in columns 0 to {columns - 1} and rows 0 to {rows - 1} of the "
                f"sensor's {width}x{height} pixels, so every recording would fill only a corner of its frames. "
                + self.advice_on_sensor(needed)
            )

    def advice_on_sensor(self, needed: tuple[int, int]) -> str:
        """What to do if the events need a different sensor size."""
        return (
            f"These recordings are not from {self.what}. For your own recordings, use dataset=event_folder "
            f"dataset.sensor_size={size_option(needed)}."
        )

    @override
    def frames(self, recording: Recording, span_us: tuple[int, int] | None = None) -> NDArray[Any]:
        recording.check(*self.sensor, self.config.max_left_out)
        work = self.work()
        start = int(recording.t[0])
        end = int(recording.t[-1]) + 1 if work.window_us is None else start + work.window_us
        return work.frames(recording, span_us or (start, end))

    def work(self) -> ClipFrames:
        """The function that turns clips into frames with the current options."""
        config = self.config
        window = None if config.window_ms is None else round(config.window_ms * 1000)
        return ClipFrames(
            read=self.reader(),
            sensor=self.sensor,
            time_steps=self.time_steps,
            image_size=config.image_size,
            bins=config.bins,
            binning=config.binning,
            resize=config.resize,
            window_us=window,
            stride_us=window if config.stride_ms is None else round(config.stride_ms * 1000),
            on_disorder=config.on_disorder,
            on_gap=config.on_gap,
            max_left_out=config.max_left_out,
            classes=config.classes,
        )


def _part_size(clips: Sequence[Clip]) -> int:
    """Clips per part: about 8 MB of files, or 24 clips if they are parts of files, which each part decodes in full."""
    if any(clip.begin_us is not None for clip in clips):
        return 24
    mean: float = sum(clip.entry.size for clip in clips) / max(len(clips), 1)
    return max(1, min(256, round(8e6 / max(mean, 1))))


def size_option(size: tuple[int, int]) -> str:
    """Format a sensor size as a value of dataset.sensor_size."""
    return str(size[0]) if size[0] == size[1] else f"[{size[0]},{size[1]}]"
