"""Your own recordings: `split/class/*.{aedat4,aedat,bin,npz,npy,dat}`, or one file per class: `split/class.aedat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from typing_extensions import override

from gradspike.data.events.clips import Clip, Reader
from gradspike.data.events.listing import Listing
from gradspike.data.events.recordings import read_recording
from gradspike.data.events.source import EventSource, size_option
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.by_class import ClassListing, list_by_class, samples_root
from gradspike.data.files.companions import is_companion
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.files.names import class_name
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import EventFolderConfig
from gradspike.data.source import SPLITS, Split
from gradspike.errors import UserError
from gradspike.shown import listed

Folders = Mapping[Split, Sequence[str]]


class EventFolder(EventSource[EventFolderConfig]):
    """Recordings in a folder, zip or tar file, by split and class."""

    Config: ClassVar[type[DatasetConfig]] = EventFolderConfig
    what = "The event folder"
    usual_names = ("event_folder", "event_folder.zip", "event_folder.tar")
    put = "your recordings as event_folder/train/<class>/<name>.aedat and event_folder/test/<class>/<name>.aedat"

    @property
    @override
    def sensor(self) -> tuple[int, int]:
        size = self.config.sensor_size
        return (size, size) if isinstance(size, int) else size

    @override
    def reader(self) -> Reader:
        return partial(read_recording, chip=self.config.chip)

    @override
    def advice_on_sensor(self, needed: tuple[int, int]) -> str:
        return f"Set dataset.sensor_size={size_option(needed)}."

    @override
    def list_recordings(self, places: Sequence[Files]) -> Listing:
        config = self.config
        folders: dict[Split, tuple[str, ...]] = {"train": (config.train_folder,), "test": (config.test_folder,)}
        if config.val_folder is not None:
            folders["val"] = (config.val_folder,)
        return list_by_folder(places, self.endings, folders)

    @override
    def key_of_files(self) -> dict[str, Any]:
        config = self.config
        return {"folders": [config.train_folder, config.val_folder, config.test_folder], "chip": config.chip}


def list_by_folder(places: Sequence[Files], endings: Sequence[str], folders: Folders) -> Listing:
    """List the recordings `split/class/...` or `split/class.ext`, labelled by sorted class name. Raises UserError."""
    listings = [_by_class(files, endings, folders) for files in places]
    found = {split for listing in listings for split in listing.splits}
    for split in ("train", "test"):
        if split not in found:
            tops = sorted({entry.name.partition("/")[0] for files in places for entry in files.entries()})
            first_of_equal = {name.casefold(): name for name in reversed(folders[split])}
            names = " or ".join(reversed(first_of_equal.values()))
            raise UserError(
                f"{places[0].shown()}: has no recordings in a folder {names} for the {split} "
                f"split; found {listed(tops) or 'nothing'}. Expected {folders[split][0]}/<class>/<name> with "
                f"{', '.join(endings)}."
            )
    class_names = tuple(sorted({name for listing in listings for name in listing.class_names()}))
    labels = {name: label for label, name in enumerate(class_names)}
    clips = numbered(
        [
            Clip(listing.files, entry, labels[name], split, group=0)
            for listing in listings
            for split in SPLITS
            for name, entries in listing.splits.get(split, {}).items()
            for entry in entries
        ]
    )
    bad = [file for listing in listings for file in listing.bad]
    first: dict[str, Clip] = {}
    for clip in clips:
        same = first.setdefault(clip.entry.name.rpartition(".")[0], clip)
        if same is not clip:
            bad.append(BadFile(clip.path, f"has the same name as {same.path}, so it may be the same recording"))
    return Listing(tuple(numbered(list(first.values()))), class_names, tuple(bad))


def numbered(clips: Sequence[Clip]) -> list[Clip]:
    """Sort the clips by file name. Each file is its own group."""
    ordered = sorted(clips, key=lambda clip: (clip.entry.name, clip.files.shown()))
    return [replace(clip, group=group) for group, clip in enumerate(ordered)]


def _by_class(files: Files, endings: Sequence[str], folders: Folders) -> ClassListing:
    """List files by class folder. If no split has class folders, the file name without extension is the class."""
    wanted = {name: split for split, names in folders.items() for name in names}
    files = samples_root(files, endings, folders)
    inside = [entry for entry in files.entries() if entry.name.partition("/")[0] in wanted and "/" in entry.name]
    recordings = [entry for entry in inside if entry.name.lower().endswith(tuple(endings))]
    if not recordings or any(entry.name.count("/") > 1 for entry in recordings):
        return list_by_class(files, endings, folders)
    splits: dict[Split, dict[str, tuple[Entry, ...]]] = {}
    for entry in recordings:
        folder, _, name = entry.name.partition("/")
        classes = splits.setdefault(wanted[folder], {})
        of_class = class_name(name.rpartition(".")[0])
        classes[of_class] = (*classes.get(of_class, ()), entry)
    bad = [
        BadFile(files.shown(entry.name), f"has none of the extensions {', '.join(endings)}")
        for entry in inside
        if not entry.name.lower().endswith(tuple(endings)) and not is_companion(entry.name, endings)
    ]
    return ClassListing(files, splits, (*files.bad(), *bad))
