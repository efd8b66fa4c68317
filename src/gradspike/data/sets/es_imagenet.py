"""ES-ImageNet (Lin, Ding, Qiang, Deng & Li, Front. Neurosci. 2021): ImageNet's images as events of a simulated motion.

Reads the published files: `train/class<label>/*.npz`, `val/*.npz`, `trainlabel.txt` and `vallabel.txt`. The folder
`val` is the test split.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gradspike.data.events.bit_frames import BitFrames
from gradspike.data.events.es_imagenet import LARGEST, SHAPE, ListedFile, read_listed
from gradspike.data.events.kept import kept_facts
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.companions import is_companion, left_out
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.files.text import read_text
from gradspike.data.files.unread import unread
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import ESImageNetConfig
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.file_source import FileSource
from gradspike.data.prepared.parts import Names, build_in_parts, refuse_bad_files
from gradspike.data.prepared.stored import Prepared
from gradspike.data.source import SPLITS, Samples, Split, hold_out, untrained
from gradspike.errors import UserError
from gradspike.shown import listed

log = logging.getLogger(__name__)

VERSION = 1
VAL_SEED = 2021
PART_SIZE = 256
"""Files per part: 26 MB of bits."""
BYTES = int(np.prod(SHAPE)) // 8
ENDING = ".npz"
LISTS: dict[Split, tuple[str, str]] = {"train": ("trainlabel.txt", "train/"), "test": ("vallabel.txt", "val/")}
"""The list and the folder of each split."""
_CLASS = re.compile(r"class(\d+)", re.ASCII)


class ESImageNet(FileSource[ESImageNetConfig]):
    """Binary frames [8, 2, 224, 224], stored as bits."""

    Config: ClassVar[type[DatasetConfig]] = ESImageNetConfig
    what = "ES-ImageNet"
    usual_names = ("ES-imagenet-0.18", "ES-ImageNet", "es_imagenet", *(f"es_imagenet{ending}" for ending in ARCHIVES))
    put = (
        "the folder ES-imagenet-0.18 (train/, val/, trainlabel.txt and vallabel.txt), unpacked from the RAR files that "
        "https://github.com/lyh983012/ES-imagenet-master links to"
    )

    @override
    def load(self) -> Samples:
        opened = self.open_prepared(self.config.name, {"version": VERSION}, self._build)
        arrays = opened.arrays
        steps, *inner = SHAPE
        return Samples(
            BitFrames(arrays["bits"], steps, tuple(inner), self.time_steps),
            arrays["labels"],
            self._splits(opened),
            class_names=tuple(opened.facts["class_names"]),
            names=Names(arrays["names"]),
            folder=opened.folder,
        )

    def _splits(self, opened: Prepared) -> NDArray[np.uint8]:
        """The split of each sample, stored in a separate small prepared set."""
        config, labels = self.config, np.asarray(opened.arrays["labels"])
        key = {"of": opened.folder.name, "version": VERSION, "val_fraction": config.val_fraction}

        def build(folder: Path) -> dict[str, Any]:
            splits = hold_out(labels, np.array(opened.arrays["splits"]), config.val_fraction, VAL_SEED)
            np.save(folder / "splits.npy", splits)
            return _counts(splits)

        splits: NDArray[np.uint8] = prepared(self.data_dir, f"{config.name}-split", key, build).arrays["splits"]
        if missing := untrained(opened.facts["class_names"], labels, splits):
            raise UserError(
                f"No training sample is left for the class{'es' if len(missing) > 1 else ''} {listed(missing)}. Add "
                "samples, or remove the class from both lists and lower dataset.classes."
            )
        return splits

    def _build(self, files: Files, folder: Path) -> dict[str, Any]:
        files = files.within_single_folder("train", "val")
        items, class_names, bad = listing(files)
        self.check_classes(class_names, files.shown())
        refuse_bad_files(bad, self.config.on_bad_file)
        used = {item.entry.name for item in items} | {name for name, _ in LISTS.values()}
        others = left_out(files, used, {file.path for file in bad})
        with files.readable(folder) as readable:
            unusable = build_in_parts(
                folder,
                items,
                partial(read_listed, files=readable),
                part_size=PART_SIZE,
                workers=self.prepare_workers,
                title=f"preparing {self.config.name}",
                on_bad_file=self.config.on_bad_file,
                bytes_per_item=BYTES,
            )
        for file in (*bad, *unusable):
            log.warning("Left out: %s: %s", file.path, file.problem)
        kept, cropped, repeated = np.load(folder / "noted.npy").sum(axis=0).tolist()
        return {
            "samples": _counts(np.load(folder / "splits.npy")),
            "kept": kept_facts("events", kept, cropped),
            "repeated": repeated,
            "source": files.shown(),
            "class_names": list(class_names),
            "bad": [[file.path, file.problem] for file in (*bad, *unusable)],
            "left_out": others,
        }


def listing(files: Files) -> tuple[list[ListedFile], list[str], list[BadFile]]:
    """The listed files by split and name, the class names, and the unusable lines and files. Raises UserError.

    Labels are numbered without gaps in the order of those in the lists, so a part of the classes can be used.
    """
    bad = list(files.bad())
    found: list[ListedFile] = []
    for split, (name, folder) in LISTS.items():
        entry = files.find(name)
        if entry is None:
            raise UserError(f"{files.shown(name)} is missing: it lists the {split} split.{unread(files)}")
        found += _of_split(files, split, entry, _by_stem(files, folder, bad), bad)
    labels = sorted({item.label for item in found})
    for split, (name, _) in LISTS.items():
        there = {item.label for item in found if item.split == SPLITS.index(split)}
        bad += [
            BadFile(files.shown(name), f"the class{label} has no sample in the {split} split")
            for label in labels
            if label not in there
        ]
    number = {label: place for place, label in enumerate(labels)}
    items = [
        ListedFile(item.entry, number[item.label], item.split, item.rows, item.columns)
        for item in sorted(found, key=lambda item: (item.split, item.entry.name))
    ]
    return items, [f"class{label}" for label in labels], bad


def _by_stem(files: Files, folder: str, bad: list[BadFile]) -> dict[str, Entry]:
    """The samples in a folder by name without extension. Adds other files, and names that occur twice, to `bad`."""
    stems: dict[str, Entry] = {}
    for entry in files.entries():
        if not entry.name.startswith(folder) or is_companion(entry.name, (ENDING,)):
            continue
        stem, dot, ending = entry.name.rpartition("/")[2].rpartition(".")
        if dot + ending.lower() != ENDING:
            bad.append(BadFile(files.shown(entry.name), f"does not have the extension {ENDING}"))
        elif stems.setdefault(stem, entry) is not entry:
            bad.append(BadFile(files.shown(entry.name), f"has the same name as {files.shown(stems[stem].name)}"))
    return stems


def _of_split(
    files: Files, split: Split, list_entry: Entry, stems: dict[str, Entry], bad: list[BadFile]
) -> Iterator[ListedFile]:
    """Yield the files that a list names; adds lines without a file, and files without a line, to `bad`."""
    seen: set[str] = set()
    for number, line in enumerate(read_text(files, list_entry).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{files.shown(list_entry.name)}, line {number}"
        match line.split():
            case [name, *numbers] if len(numbers) == 3 and all(map(_is_number, numbers)):
                label, rows, columns = map(int, numbers)
            case _:
                bad.append(BadFile(where, "expected a file name, its label and two sizes, separated by spaces"))
                continue
        stem = name.rpartition("/")[2].rpartition(".")[0] or name
        entry = stems.get(stem)
        if entry is None:
            bad.append(BadFile(where, f"lists {name}, which is not in {LISTS[split][1]}"))
        elif stem in seen:
            bad.append(BadFile(where, f"lists {name} twice"))
        elif max(rows, columns) > LARGEST:
            bad.append(BadFile(where, f"gives the sizes {rows} and {columns}; they are at most {LARGEST}"))
        elif (named := _CLASS.fullmatch(entry.name.split("/")[-2])) and int(named[1]) != label:
            bad.append(BadFile(where, f"gives {name} the label {label}, but it is in the folder {named[0]}"))
        else:
            yield ListedFile(entry, label, SPLITS.index(split), rows, columns)
        seen.add(stem)
    for stem in sorted(stems.keys() - seen):
        bad.append(BadFile(files.shown(stems[stem].name), f"is not in {list_entry.name}"))


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 6


def _counts(splits: NDArray[np.uint8]) -> dict[str, int]:
    return {split: int((splits == place).sum()) for place, split in enumerate(SPLITS)}
