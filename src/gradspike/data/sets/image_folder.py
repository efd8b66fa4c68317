"""Your own images: `split/class/name.ext` in a folder, zip or tar file."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import ImageFolderConfig
from gradspike.data.pictures.encoded_source import LargePictureSource
from gradspike.data.pictures.listing import PictureListing, list_class_folders


class ImageFolder(LargePictureSource[ImageFolderConfig]):
    """Images [3, S, S]: the shorter side is scaled to image_size, then the centre is cropped."""

    Config: ClassVar[type[DatasetConfig]] = ImageFolderConfig
    what = "A folder of images"
    usual_names = ("image_folder", *(f"image_folder{ending}" for ending in ARCHIVES))
    put = "your images as image_folder/train/<class>/<name>.png and image_folder/test/<class>/<name>.png"

    @override
    def listing(self, files: Files) -> PictureListing:
        return list_class_folders(files)
