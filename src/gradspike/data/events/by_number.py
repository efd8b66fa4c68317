"""Data sets of numbered recordings without an official split: each class is divided into folds by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gradspike.data.events.clips import Clip
from gradspike.data.events.listing import Listing
from gradspike.data.events.source import EventSource
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.options.events import NumberedConfig
from gradspike.data.prepared.stored import Prepared
from gradspike.data.source import SPLITS
from gradspike.errors import ConfigError
from gradspike.shown import counted

ConfigT = TypeVar("ConfigT", bound=NumberedConfig)
Numbered = tuple[str, int, Files, Entry]
"""A recording: its class, its number, and its file."""


class ByNumber(EventSource[ConfigT]):
    """Recordings split by the number in the file name."""

    @override
    def key_of_split(self) -> dict[str, Any]:
        return {"folds": self.config.folds, "test_fold": self.test_fold}

    @property
    def test_fold(self) -> int:
        """Index of the test fold, from 0."""
        return self.config.folds - 1 if self.config.test_fold is None else self.config.test_fold

    @override
    def split(self, frames: Prepared) -> NDArray[np.uint8]:
        """Split by the position of each file among all files of its class, including bad files."""
        splits = np.array(frames.arrays["listed"])
        if (splits == SPLITS.index("test")).any():
            if self.config.test_fold is not None:
                raise ConfigError(
                    f"dataset.test_fold={self.config.test_fold}: the files are already split into the folders train "
                    "and test. Remove test_fold, or use files without a split."
                )
            return self.hold_out(frames, splits)
        rank, label = np.asarray(frames.arrays["rank"]), np.asarray(frames.arrays["labels"])
        sizes = frames.facts["class_sizes"]
        if min(sizes) < self.config.folds:
            raise ConfigError(
                f"dataset.folds={self.config.folds}: the class {frames.facts['class_names'][np.argmin(sizes)]} has "
                f"{counted(min(sizes), 'recording')}, so some folds would test none of it. Set "
                f"dataset.folds={min(sizes)} or less, or add recordings."
            )
        of_class = np.asarray(sizes)[label]
        splits[rank * self.config.folds // of_class == self.test_fold] = SPLITS.index("test")
        return self.hold_out(frames, splits)


def list_by_number(found: Sequence[Numbered], bad: Sequence[BadFile], class_names: Sequence[str]) -> Listing:
    """List recordings by name, ranked by number within their class; two with the same number are bad files.

    class_names: in the order of the labels. Classes without recordings get no label.
    """
    first: dict[tuple[str, int], str] = {}
    twice = []
    for name, number, files, entry in found:
        path = files.shown(entry.name)
        if first.setdefault((name, number), path) != path:
            twice.append(BadFile(path, f"is recording {number} of class {name}, as is {first[name, number]}"))
    kept = [item for item in found if first[item[:2]] == item[2].shown(item[3].name)]
    with_recordings = {name for name, *_ in kept}
    present = [name for name in class_names if name in with_recordings]
    ranks: dict[tuple[Files, str], int] = {}
    seen = dict.fromkeys(present, 0)
    for name, _, files, entry in sorted(kept, key=lambda item: (item[0], item[1], item[3].name)):
        ranks[files, entry.name] = seen[name]
        seen[name] += 1
    clips = tuple(
        Clip(files, entry, present.index(name), "train", group=group, rank=ranks[files, entry.name])
        for group, (name, _, files, entry) in enumerate(sorted(kept, key=lambda item: item[3].name))
    )
    return Listing(clips, tuple(present), (*bad, *twice))
