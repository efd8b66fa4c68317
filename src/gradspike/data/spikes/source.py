"""Base class of data sets of spike trains: finds the HDF5 file of each split, prepares and splits the recordings."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gradspike.data.events.kept import kept_facts, kept_line
from gradspike.data.events.listing import is_archive, recordings_within
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.companions import left_out
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.options.spikes import SpikeTrainsConfig
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.file_source import FileSource
from gradspike.data.prepared.parts import Names, build_in_parts, encode_names, refuse_bad_files
from gradspike.data.prepared.stored import Prepared
from gradspike.data.source import SPLITS, Samples, Split, hold_out, untrained
from gradspike.data.spikes.counts import SpikeCounts, Train
from gradspike.data.spikes.hdf5 import Recordings, read_facts
from gradspike.errors import UserError
from gradspike.shown import listed

log = logging.getLogger(__name__)

VERSION = 1
VAL_SEED = 2019
ENDINGS = (".h5",)
PART = 256
ConfigT = TypeVar("ConfigT", bound=SpikeTrainsConfig)


class SpikeTrains(FileSource[ConfigT]):
    """Counts of spikes from one HDF5 file per split. Subclasses define the files' names."""

    split_files: ClassVar[Mapping[Split, str]]
    """File names of the splits."""

    @override
    def load(self) -> Samples:
        config = self.config
        key = {
            "version": VERSION,
            "time_steps": self.time_steps,
            "pool_channels": config.pool_channels,
            "window_s": config.window_s,
            "binning": config.binning,
            "on_disorder": config.on_disorder,
            "max_left_out": config.max_left_out,
        }
        stored = self.open_prepared(config.name, key, self._build)
        arrays = stored.arrays
        return Samples(
            arrays["inputs"],
            arrays["labels"],
            self._splits(stored),
            class_names=tuple(stored.facts["class_names"]),
            names=Names(arrays["names"]),
            folder=stored.folder,
        )

    def _splits(self, stored: Prepared) -> NDArray[np.uint8]:
        """The split of each sample, stored in a separate small prepared set.

        Without a file for validation, whole speakers are held out, because the test split has speakers of its own.
        """
        config = self.config
        key = {"of": stored.folder.name, "version": VERSION, "val_fraction": config.val_fraction}

        def build(folder: Path) -> dict[str, Any]:
            splits = np.array(stored.arrays["listed"])
            if "val" not in self.split_files and config.val_fraction:
                labels, speakers = np.asarray(stored.arrays["labels"]), np.asarray(stored.arrays["group"])
                splits = hold_out(labels, splits, config.val_fraction, VAL_SEED, speakers)
            np.save(folder / "splits.npy", splits)
            return {split: int((splits == place).sum()) for place, split in enumerate(SPLITS)}

        splits: NDArray[np.uint8] = prepared(self.data_dir, f"{config.name}-split", key, build).arrays["splits"]
        if missing := untrained(stored.facts["class_names"], stored.arrays["labels"], splits):
            raise UserError(
                f"No training recording is left for the class{'es' if len(missing) > 1 else ''} {listed(missing)}. "
                "Add recordings, or lower dataset.val_fraction."
            )
        return splits

    def _build(self, files: Files, folder: Path) -> dict[str, Any]:
        config = self.config
        with recordings_within(files, ENDINGS, folder) as places, self._found(places, folder) as found:
            facts = {split: read_facts(path, shown) for split, (path, shown) in found.items()}
            class_names = self._class_names(facts, found)
            self.check_classes(class_names, files.shown())
            trains = [
                Train(number, index, label, SPLITS.index(split), speaker)
                for number, (split, of) in enumerate(facts.items())
                for index, (label, speaker) in enumerate(zip(of.labels.tolist(), of.speakers.tolist(), strict=True))
            ]
            missing = [
                BadFile(found[split][1], f"the class {name} has no recording in the {split} split")
                for split, of in facts.items()
                for label, name in enumerate(class_names)
                if label not in of.labels
            ]
            refuse_bad_files(missing, config.on_bad_file)
            used = set(self.split_files.values())
            others = left_out(files, {e.name for e in files.entries() if _base(e) in used or is_archive(e)}, ())
            work = SpikeCounts(
                paths=tuple(path for path, _ in found.values()),
                shown=tuple(shown for _, shown in found.values()),
                time_steps=self.time_steps,
                pool_channels=config.pool_channels,
                window_s=config.window_s,
                binning=config.binning,
                on_disorder=config.on_disorder,
                max_left_out=config.max_left_out,
                classes=config.classes,
            )
            bad = build_in_parts(
                folder,
                trains,
                work,
                part_size=PART,
                workers=self.prepare_workers,
                title=f"preparing {config.name}",
                on_bad_file=config.on_bad_file,
                bytes_per_item=self.time_steps * config.channels,
            )
        file, index = np.load(folder / "file.npy"), np.load(folder / "index.npy")
        stems = [self.split_files[split] for split in facts]
        names = [f"{stems[of]}/{at}" for of, at in zip(file.tolist(), index.tolist(), strict=True)]
        np.save(folder / "names.npy", encode_names(names))
        kept, late, disordered = np.load(folder / "noted.npy").sum(axis=0).tolist()
        facts_kept = kept_facts("spikes", kept, late, disordered)
        if late or disordered:
            log.warning("spikes: %s.", kept_line(facts_kept))
        listed_in = np.load(folder / "listed.npy")
        return {
            "samples": {split: int((listed_in == place).sum()) for place, split in enumerate(SPLITS)},
            "kept": facts_kept,
            "source": files.shown(),
            "class_names": list(class_names),
            "bad": [[one.path, one.problem] for one in (*missing, *bad)],
            "left_out": others,
        }

    @contextmanager
    def _found(self, places: Sequence[Files], folder: Path) -> Iterator[dict[Split, tuple[Path, str]]]:
        """The path of each split's file and its path for messages. A file in an archive is unpacked into `folder`."""
        entries = [(place, entry) for place in places for entry in place.entries()]
        found: dict[Split, tuple[Path, str]] = {}
        unpacked: list[Path] = []
        try:
            for split, name in self.split_files.items():
                matching = [(place, entry) for place, entry in entries if _base(entry) == name]
                if len(matching) != 1:
                    shown = listed([place.shown(entry.name) for place, entry in matching or entries])
                    problem = "several" if matching else "no"
                    raise UserError(
                        f"{places[0].shown()}: has {problem} file{'s' if matching else ''} {name} for the {split} "
                        f"split. Found: {shown}."
                    )
                place, entry = matching[0]
                path = place.path / place.root / entry.name
                if place.kind != "folder":
                    path = folder / name
                    path.write_bytes(place.read(entry, most=math.inf))
                    unpacked.append(path)
                found[split] = (path, place.shown(entry.name))
            yield found
        finally:
            for path in unpacked:
                path.unlink(missing_ok=True)

    def _class_names(
        self, facts: Mapping[Split, Recordings], found: Mapping[Split, tuple[Path, str]]
    ) -> tuple[str, ...]:
        """The class names, which must be the same in all files."""
        names = {split: of.class_names for split, of in facts.items()}
        first = names["train"]
        for split, others in names.items():
            if others != first:
                raise UserError(
                    f"{found['train'][1]} names the classes {listed(first)}, but {found[split][1]} {listed(others)}."
                )
        return first


def _base(entry: Entry) -> str:
    return entry.name.rpartition("/")[2]
