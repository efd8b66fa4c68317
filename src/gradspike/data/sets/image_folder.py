"""Anyone's own pictures: `split/class/name.ext` in a folder, a zip or a tar file."""

from __future__ import annotations

from typing import ClassVar

from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import ImageFolderConfig
from gradspike.data.pictures.source import PictureListing, PictureSource, list_class_folders


class ImageFolder(PictureSource[ImageFolderConfig]):
    """Pictures [3, S, S]: the shorter side brought to image_size, the middle cut out."""

    Config: ClassVar[type[DatasetConfig]] = ImageFolderConfig
    what = "A folder of pictures"
    usual_names = ("image_folder", *(f"image_folder{ending}" for ending in ARCHIVES))
    put = "your pictures as image_folder/train/<class>/<name>.png and image_folder/test/<class>/<name>.png"

    def listing(self, files: Files) -> PictureListing:
        """Training, validation and test pictures by their folders."""
        return list_class_folders(files)
