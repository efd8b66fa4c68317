"""ImageNet-1k (ILSVRC 2012; Russakovsky et al., IJCV 2015) in class folders."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import PurePosixPath
from typing import ClassVar

from typing_extensions import override

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.by_class import samples_root, split_folder
from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.files.text import read_text
from gradspike.data.files.unread import unread
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import ImageNetConfig
from gradspike.data.pictures.decode import EXTENSIONS
from gradspike.data.pictures.encoded_source import LargePictureSource
from gradspike.data.pictures.listing import PictureListing, list_class_folders
from gradspike.data.source import SPLITS, Split
from gradspike.errors import UserError
from gradspike.shown import counted, listed

OFFICIAL_TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
SOLUTION = "LOC_val_solution.csv"
FOLDERS = ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")


class ImageNet(LargePictureSource[ImageNetConfig]):
    """Images by class (sorted WordNet ids). `train` holds training and validation, `val` the test split."""

    Config: ClassVar[type[DatasetConfig]] = ImageNetConfig
    what = "ImageNet"
    usual_names = (*FOLDERS, *(f"imagenet{ending}" for ending in ARCHIVES))
    put = (
        "the images as imagenet/train/<wnid>/*.JPEG and imagenet/val/<wnid>/*.JPEG (a folder, zip or tar; request "
        "them at https://image-net.org; Kaggle's ILSVRC has the same folders except for val)"
    )

    @override
    def listing(self, files: Files) -> PictureListing:
        root = samples_root(files, EXTENSIONS)
        names = [entry.name for entry in root.entries()]
        train, val, test = (f"{split_folder(root, split, EXTENSIONS)}/" for split in SPLITS)
        pictures = [name for name in names if name.lower().endswith(EXTENSIONS)]
        tars = [name for name in names if name.rpartition("/")[2] in OFFICIAL_TARS or name.endswith(".tar")]
        if tars and not any(name.startswith(train) for name in pictures):
            raise UserError(
                f"{files.shown()} contains {counted(len(tars), 'archive')} ({listed(tars, 3)}) instead of training "
                "images. Unpack everything: one folder per class in train/, and val/ as below.\n" + SORT_HINT
            )
        flat = [name for name in pictures if name.startswith(val) and name.count("/") == 1]
        labels = _solution(files) if flat else {}
        if flat and not labels and not any(name.startswith(val) and name.count("/") > 1 for name in pictures):
            raise UserError(
                f"{files.shown()}: {val} has {counted(len(flat), 'image')} ({flat[0]}, ...) outside class folders, so "
                "their labels are unknown.\n" + SORT_HINT
            )
        labelled_test = any(name.startswith(test) and name.count("/") > 1 for name in pictures)
        if not labelled_test and not any(name.startswith(val) for name in names):
            raise UserError(
                f"{files.shown()} has no val/, and ImageNet's validation images are the test split.{unread(root)} To "
                "try out what is there, unpack it and run: ln -s train val. Test results are then those of training "
                "images."
            )
        by_name = {name[len(val) :]: labels.get(PurePosixPath(name).stem, "") for name in flat}
        known: dict[Split, dict[str, str]] = {"val": {name: wnid for name, wnid in by_name.items() if wnid}}
        found = list_class_folders(root, labels=known, test_may_lack_labels=True)
        there = {PurePosixPath(name).stem for name in pictures}
        gone = [BadFile(root.shown(val + name), f"is in {SOLUTION} but missing") for name in labels.keys() - there]
        return replace(found, bad=(*found.bad, *sorted(gone, key=lambda file: file.path)))


def _solution(files: Files) -> dict[str, str]:
    """Classes of the validation images by file name without extension, from Kaggle's list. Empty without the list."""
    entry = next((entry for entry in files.entries() if entry.name.rpartition("/")[2] == SOLUTION), None)
    if entry is None:
        return {}
    classes = {}
    for number, row in enumerate(csv.reader(read_text(files, entry).splitlines()), start=1):
        if not row or row[0] == "ImageId":
            continue
        if len(row) != 2 or not row[1].split():
            raise UserError(f"{files.shown(entry.name)}, line {number}: expected an image's name and its class.")
        classes[row[0]] = row[1].split()[0]
    return classes


SORT_HINT = (
    "torchvision sorts the official validation archive into class folders. With ILSVRC2012_img_val.tar and "
    "ILSVRC2012_devkit_t12.tar.gz in one folder, run\n"
    "  python -c \"from torchvision.datasets import ImageNet; ImageNet('<that folder>', split='val')\"\n"
    "(split='train' unpacks the training archive), then add dataset.source=<that folder>. With Kaggle's files, put "
    "LOC_val_solution.csv beside train/ and val/ instead."
)
