"""N-Caltech101 (Orchard, Jayawant, Cohen & Thakor, Front. Neurosci. 2015): Caltech101's images, recorded with three
saccades by an ATIS.

Reads the published files, `Caltech101/<class>/image_<number>.bin`. An image covers up to 240x180 pixels, each another
part of them; its events stay where they were recorded. The data set has no official split, so each class is divided
by file number into folds, as CIFAR10-DVS is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import override

from gradspike.data.events.by_number import ByNumber, Numbered, list_by_number
from gradspike.data.events.listing import Listing
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.by_class import SPLIT_FOLDERS
from gradspike.data.files.files import Files
from gradspike.data.files.names import class_name
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import NCaltech101Config
from gradspike.errors import UserError

_NAME = re.compile(r"(?:.*/)?([^/]+)/image_(\d+)\.\w+")
_BOX = re.compile(r"(?:.*/)?annotation_\d+\.\w+")
"""Outlines of the objects, in Caltech101_annotations beside the recordings: also .bin files, but no events."""


class NCaltech101(ByNumber[NCaltech101Config]):
    """Recordings `<class>/image_<number>.bin`, in one folder or archive."""

    Config: ClassVar[type[DatasetConfig]] = NCaltech101Config
    what = "N-Caltech101"
    usual_names = (
        "Caltech101", "N-Caltech101", "ncaltech101", "NCALTECH101", "Caltech101.zip", "N-Caltech101.zip",
        "N-Caltech101-archive.zip", "ncaltech101.zip",
    )  # fmt: skip
    put = (
        "Caltech101.zip from https://www.garrickorchard.com/datasets/n-caltech101 (its Caltech101_annotations.zip may "
        "lie beside it), packed or unpacked"
    )
    endings = (".bin",)

    @property
    @override
    def sensor(self) -> tuple[int, int]:
        return 240, 180

    @override
    def list_recordings(self, places: Sequence[Files]) -> Listing:
        found: list[Numbered] = []
        bad = [file for files in places for file in files.bad()]
        splits = {name for names in SPLIT_FOLDERS.values() for name in names}
        for files in places:
            for entry in files.entries():
                if not entry.name.lower().endswith(self.endings) or _BOX.fullmatch(entry.name):
                    continue
                if splits.intersection(entry.name.split("/")[:-2]):
                    raise UserError(
                        f"{files.shown(entry.name)}: the recordings are already divided, but N-Caltech101 is "
                        "read undivided. Use dataset=event_folder dataset.sensor_size=[240,180] to keep your splits."
                    )
                if named := _NAME.fullmatch(entry.name):
                    found.append((class_name(named[1]), int(named[2]), files, entry))
                else:
                    bad.append(BadFile(files.shown(entry.name), "is not named <class>/image_<number>.bin"))
        if not found:
            raise UserError(f"{places[0].shown()}: contains no recordings named <class>/image_<number>.bin.")
        return list_by_number(found, bad, sorted({name for name, *_ in found}))
