"""N-MNIST (Orchard, Jayawant, Cohen & Thakor, Front. Neurosci. 2015): MNIST digits recorded with three saccades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import override

from gradspike.data.events.listing import Listing, RemoteFile
from gradspike.data.events.source import EventSource
from gradspike.data.files.by_class import SPLIT_FOLDERS
from gradspike.data.files.files import Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import NMnistConfig
from gradspike.data.sets.event_folder import list_by_folder


class NMnist(EventSource[NMnistConfig]):
    """34x34 recordings `Train|Test/<digit>/<number>.bin`, in one folder or archive, or in one per split."""

    Config: ClassVar[type[DatasetConfig]] = NMnistConfig
    what = "N-MNIST"
    usual_names = ("NMNIST", "N-MNIST", "nmnist", "NMNIST.zip", "N-MNIST.zip", "nmnist.zip")
    put = (
        "Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist, in a folder NMNIST, packed "
        "or unpacked"
    )

    @property
    @override
    def sensor(self) -> tuple[int, int]:
        return 34, 34

    @override
    def list_recordings(self, places: Sequence[Files]) -> Listing:
        return list_by_folder(places, self.endings, SPLIT_FOLDERS)

    @override
    def remote_files(self) -> tuple[RemoteFile, ...]:
        from tonic.datasets import NMNIST

        return (
            RemoteFile(NMNIST.train_url, NMNIST.train_md5, "Train.zip"),
            RemoteFile(NMNIST.test_url, NMNIST.test_md5, "Test.zip"),
        )
