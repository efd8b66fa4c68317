"""CIFAR10-DVS (Li, Liu, Ji, Li & Shi, Front. Neurosci. 2017): 1,000 recordings of each class of CIFAR-10.

Reads tonic's distribution (.aedat4), the original one (AEDAT 2.0), events as .npz, .npy, .dat or .bin, and TET's
precomputed frames (train/0.pt, test/0.pt). The files can be in one folder or archive, or in one archive per class.

The data set has no official split. The literature splits each class 9:1 by the number in the file name. `folds` and
`test_fold` set the number of folds and the test fold (default: the last one). TET's frames keep their own split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from typing_extensions import override

from gradspike.data.events.aedat2 import SIZE
from gradspike.data.events.by_number import ByNumber, Numbered, list_by_number
from gradspike.data.events.clips import Clip, Reader
from gradspike.data.events.listing import Listing, RemoteFile
from gradspike.data.events.ready_frames import READY
from gradspike.data.events.recording import Recording
from gradspike.data.events.recordings import read_recording
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import Cifar10DvsConfig
from gradspike.data.source import Split
from gradspike.errors import UserError
from gradspike.shown import counted

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_NAME = re.compile(r"(?:.*/)?cifar10_([a-z]+)_(\d+)\.\w+")
_NUMBER = re.compile(r"(\d+)\.\w+$")


def read_upright(name: str, data: bytes) -> Recording:
    """Read a recording. Swaps the axes of original .aedat files to turn the images upright.

    The camera lay on its side, so jAER shows the images mirrored along a diagonal. SpikingJelly and events-tfds also
    swap the axes (column 127 - y bits, row 127 - x bits).
    """
    recording = read_recording(name, data, chip="dvs128")
    if not name.lower().endswith(".aedat"):
        return recording
    return replace(recording, x=recording.y, y=recording.x)


class Cifar10Dvs(ByNumber[Cifar10DvsConfig]):
    """DVS128 recordings named `cifar10_<class>_<number>` or stored in one folder per class."""

    Config: ClassVar[type[DatasetConfig]] = Cifar10DvsConfig
    what = "CIFAR10-DVS"
    usual_names = ("CIFAR10DVS", "cifar10dvs", "CIFAR10-DVS", "dvs-cifar10", "CIFAR10DVS.zip", "cifar10dvs.zip")
    put = (
        "CIFAR10DVS.zip as tonic distributes it (https://figshare.com/ndownloader/files/38023437, .aedat4), or the ten "
        "archives airplane.zip ... truck.zip of the original release (https://figshare.com/articles/dataset/"
        "CIFAR10-DVS_New/4724671, .aedat), in a folder CIFAR10DVS, packed or unpacked; or add "
        "dataset.download=true on a machine with network access. Without the files, dataset=cifar10dvs_sim simulates "
        "similar recordings"
    )

    @property
    @override
    def sensor(self) -> tuple[int, int]:
        return SIZE, SIZE

    @override
    def reader(self) -> Reader:
        return read_upright

    @override
    def remote_files(self) -> tuple[RemoteFile, ...]:
        from tonic.datasets import CIFAR10DVS

        return (RemoteFile(CIFAR10DVS.url, CIFAR10DVS.file_md5, CIFAR10DVS.filename),)

    @override
    def list_recordings(self, places: Sequence[Files]) -> Listing:
        """List recordings by name, or precomputed frames (which contain their labels) by the folders train and test."""
        entries = [(files, entry) for files in places for entry in files.entries()]
        ready = [(files, entry) for files, entry in entries if entry.name.lower().endswith(READY)]
        recorded = [files.shown(entry.name) for files, entry in entries if entry.name.lower().endswith(self.endings)]
        if ready and recorded:
            raise UserError(
                f"{places[0].shown()}: contains {counted(len(recorded), 'recording')}, for example {recorded[0]}, "
                f"and {counted(len(ready), 'file')} of ready frames ({READY}). Set dataset.source to a folder "
                "with one kind."
            )
        return _list_ready(places, ready) if ready else _list_by_name(places, self.endings)


def _list_by_name(places: Sequence[Files], endings: Sequence[str]) -> Listing:
    found: list[Numbered] = []
    bad = [file for files in places for file in files.bad()]
    for files in places:
        for entry in files.entries():
            if not entry.name.lower().endswith(tuple(endings)):
                continue
            named = _NAME.fullmatch(entry.name)
            name = named[1] if named else entry.name.rpartition("/")[0].rpartition("/")[2]
            number = named[2] if named else next(iter(_NUMBER.findall(entry.name)), None)
            if name not in CLASS_NAMES or number is None:
                problem = "is named neither cifar10_<class>_<number> nor <class>/<name with a number>"
                bad.append(BadFile(files.shown(entry.name), problem))
            else:
                found.append((name, int(number), files, entry))
    if not found:
        raise UserError(
            f"{places[0].shown()}: contains no recordings named cifar10_<class>_<number> with {', '.join(endings)}."
        )
    return list_by_number(found, bad, CLASS_NAMES)


def _list_ready(places: Sequence[Files], ready: Sequence[tuple[Files, Entry]]) -> Listing:
    folders: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
    clips: list[Clip] = []
    bad = [file for files in places for file in files.bad()]
    for files, entry in ready:
        folder = entry.name.rpartition("/")[0].rpartition("/")[2]
        if folder in folders:
            clips.append(Clip(files, entry, -1, folders[folder], group=len(clips)))
        else:
            bad.append(BadFile(files.shown(entry.name), "is in neither of the folders train and test"))
    for split in ("train", "test"):
        if not any(clip.split == split for clip in clips):
            raise UserError(f"{places[0].shown()}: has ready frames ({READY}), but none in a folder {split}.")
    return Listing(tuple(clips), CLASS_NAMES, tuple(bad))
