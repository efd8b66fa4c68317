"""ImageNet-1k (ILSVRC 2012; Russakovsky et al., IJCV 2015) in class folders."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import ImageNetConfig
from gradspike.data.pictures.encoded_source import LargePictureSource
from gradspike.data.pictures.listing import PictureListing, list_class_folders
from gradspike.errors import UserError

OFFICIAL_TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
FOLDERS = ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")


class ImageNet(LargePictureSource[ImageNetConfig]):
    """Pictures by class (WordNet id, sorted). `train` gives training and validation, `val` is the test split."""

    Config: ClassVar[type[DatasetConfig]] = ImageNetConfig
    what = "ImageNet"
    usual_names = (*FOLDERS, *(f"imagenet{ending}" for ending in ARCHIVES))
    put = (
        "the pictures as imagenet/train/<wnid>/*.JPEG and imagenet/val/<wnid>/*.JPEG (a folder, zip or tar; request "
        "them at https://image-net.org; Kaggle's ILSVRC has the same folders except for val)"
    )

    @override
    def listing(self, files: Files) -> PictureListing:
        names = [entry.name for entry in files.within_single_folder("train", "val").entries()]
        tars = [name for name in names if name.rpartition("/")[2] in OFFICIAL_TARS or name.endswith(".tar")]
        if tars and not any(name.startswith("train/") for name in names):
            raise UserError(
                f"{files.shown()} holds archives ({tars[0]}, ...) instead of pictures. Unpack them: one folder per "
                "class in train/, and val/ as below.\n" + SORT_HINT
            )
        flat = [name for name in names if name.startswith("val/") and name.count("/") == 1]
        if flat and not any(name.startswith("val/") and name.count("/") > 1 for name in names):
            raise UserError(
                f"{files.shown()}: the {len(flat):,} pictures in val/ ({flat[0]}, ...) are in no class folders, so "
                "their labels are unknown.\n" + SORT_HINT
            )
        if not any(name.startswith(("val/", "test/")) for name in names):
            raise UserError(
                f"{files.shown()} has no val/, and ImageNet's validation pictures are the test split. To try out what "
                "is there, unpack it and run: ln -s train val. Test results are then those of training pictures."
            )
        return list_class_folders(files)


SORT_HINT = (
    "torchvision sorts the official validation archive into class folders. With ILSVRC2012_img_val.tar and "
    "ILSVRC2012_devkit_t12.tar.gz in one folder, run\n"
    "  python -c \"from torchvision.datasets import ImageNet; ImageNet('<that folder>', split='val')\"\n"
    "(split='train' unpacks the training archive), then add dataset.source=<that folder>."
)
