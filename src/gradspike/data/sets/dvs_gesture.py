"""DVS128 Gesture (Amir et al., CVPR 2017): 11 hand gestures by 29 subjects, recorded by a DVS128 under three lightings.

Reads the published files (`user01_led.aedat`, AEDAT 3.1, with the start and end of each gesture in
`user01_led_labels.csv`) and tonic's distribution (`ibmGestureTrain/user01_led/0.npy`: one gesture per file, columns x,
y, p, t, times in milliseconds). Subjects 1 to 23 are the training split, and 24 to 29 are the test split. The
validation split is also held out by subject. dataset.classes=10 leaves out the class "other gestures" (label 10).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from typing_extensions import override

from gradspike.data.events.aedat2 import SIZE
from gradspike.data.events.arrays import load_npy, read_npy, recording_of
from gradspike.data.events.clips import Clip, Reader
from gradspike.data.events.listing import Listing, RemoteFile
from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.data.events.recordings import read_recording
from gradspike.data.events.source import EventSource
from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import DvsGestureConfig
from gradspike.data.source import Split
from gradspike.errors import UserError
from gradspike.exhausted import raise_if_exhausted

CLASS_NAMES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter-clockwise",
    "left arm clockwise",
    "left arm counter-clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
FIRST_TEST_PERSON = 24
_PUBLISHED = re.compile(r"(?:.*/)?user(\d+)_[^/]+\.aedat", re.IGNORECASE)
_EXTRACTED = re.compile(r"(?:.*/)?user(\d+)_[^/]+/(\d+)\.npy", re.IGNORECASE)


def read_gesture(name: str, data: bytes) -> Recording:
    """Read a recording. The columns of tonic's .npy files are x, y, p, t, with t in milliseconds."""
    if not name.lower().endswith(".npy") or not data:
        return read_recording(name, data)
    array = load_npy(data)
    if array.dtype.names:
        return read_npy(data)
    if array.ndim != 2 or array.shape[1] != 4:
        raise BadRecordingError(f"contains an array of shape {array.shape}; tonic's are [E, 4]: x, y, p, t")
    x, y, p, t = array.T
    return recording_of(t * np.float64(1000) if array.dtype.kind in "iuf" else t, x, y, p)


class DvsGesture(EventSource[DvsGestureConfig]):
    """DVS128 Gesture, with one clip per gesture."""

    Config: ClassVar[type[DatasetConfig]] = DvsGestureConfig
    what = "DVS128 Gesture"
    usual_names = ("DVSGesture", "DvsGesture", "dvs_gesture", "DvsGesture.tar.gz", "DVSGesture.zip", "dvs_gesture.zip")
    put = (
        "DvsGesture.tar.gz from https://research.ibm.com/interactive/dvsgesture/, or, in a folder DVSGesture, the two "
        "archives of tonic, ibmGestureTrain.tar.gz (https://figshare.com/ndownloader/files/38022171) and "
        "ibmGestureTest.tar.gz (https://figshare.com/ndownloader/files/38020584), packed or unpacked"
    )

    @override
    def reader(self) -> Reader:
        return read_gesture

    endings = (".aedat", ".npy")

    @property
    @override
    def sensor(self) -> tuple[int, int]:
        return SIZE, SIZE

    @override
    def remote_files(self) -> tuple[RemoteFile, ...]:
        from tonic.datasets import DVSGesture as Facts

        return (
            RemoteFile(Facts.train_url, Facts.train_md5, Facts.train_filename),
            RemoteFile(Facts.test_url, Facts.test_md5, Facts.test_filename),
        )

    @override
    def list_recordings(self, places: Sequence[Files]) -> Listing:
        """List one clip per gesture: a file in tonic's distribution, or a row of a published label file."""
        clips: list[Clip] = []
        labels: list[str] = []
        bad = [file for files in places for file in files.bad()]
        for files in places:
            for entry in files.entries():
                if found := _EXTRACTED.fullmatch(entry.name):
                    clips.append(Clip(files, entry, int(found[2]), _split(found[1]), group=int(found[1])))
                elif found := _PUBLISHED.fullmatch(entry.name):
                    labels.append(files.shown(_labels_of(entry)))
                    try:
                        clips += _labelled(files, entry, found[1])
                    except (OSError, ValueError) as error:
                        raise_if_exhausted(error)
                        bad.append(BadFile(files.shown(_labels_of(entry)), str(error)))
                elif entry.name.lower().endswith(self.endings):
                    problem = "is named neither user<number>_<light>.aedat nor user<number>_<light>/<label>.npy"
                    bad.append(BadFile(files.shown(entry.name), problem))
        if not clips and not bad:
            raise UserError(
                f"{places[0].shown()}: holds neither user<number>_<light>.aedat nor user<number>_<light>/<label>.npy."
            )
        without_others = self.config.classes == len(CLASS_NAMES) - 1
        names = CLASS_NAMES[:-1] if without_others else CLASS_NAMES
        bad += [
            BadFile(clip.path, f"has label {clip.label}; labels are 0 to {len(CLASS_NAMES) - 1}")
            for clip in clips
            if clip.label >= len(CLASS_NAMES)
        ]
        kept = [clip for clip in clips if clip.label < len(names)]
        kept.sort(key=lambda clip: (clip.entry.name, clip.begin_us or 0))
        return Listing(tuple(kept), names, tuple(bad), tuple(labels))

    @override
    def key_of_files(self) -> dict[str, object]:
        return {"classes": self.config.classes}


def _split(person: str) -> Split:
    return "test" if int(person) >= FIRST_TEST_PERSON else "train"


def _labels_of(entry: Entry) -> str:
    return f"{entry.name.rpartition('.')[0]}_labels.csv"


def _labelled(files: Files, entry: Entry, person: str) -> list[Clip]:
    """The clips of a published recording. Raises ValueError if its labels are invalid."""
    labels = files.find(_labels_of(entry))
    if labels is None:
        raise ValueError(f"is missing; it contains the labels of {entry.name}")
    clips = []
    for row in csv.DictReader(io.StringIO(files.read(labels).decode("utf-8-sig"))):
        try:
            label, begin, end = int(row["class"]) - 1, int(row["startTime_usec"]), int(row["endTime_usec"])
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                "does not have the columns class, startTime_usec and endTime_usec with whole numbers"
            ) from error
        if not 0 <= label < len(CLASS_NAMES) or end <= begin:
            raise ValueError(f"has a row with class {label + 1} from {begin} to {end} us")
        clips.append(Clip(files, entry, label, _split(person), group=int(person), begin_us=begin, end_us=end))
    return clips
