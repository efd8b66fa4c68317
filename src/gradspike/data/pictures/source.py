"""The base class of image sets stored as pixels: listing, preparing, splitting, normalising."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.files import Files
from gradspike.data.options.pictures import PictureFilesConfig
from gradspike.data.pictures.listing import PictureListing
from gradspike.data.pictures.pixels import PART_SIZE, channel_statistics, read_pictures
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.file_source import FileSource
from gradspike.data.prepared.parts import Names, Part, build_in_parts, refuse_bad_files
from gradspike.data.prepared.stored import Prepared
from gradspike.data.source import SPLITS, Samples, hold_out
from gradspike.errors import UserError
from gradspike.shown import listed

VERSION = 1
"""Increase with any change in this folder that alters prepared pixels."""
SPLIT_VERSION = 1
SPLIT_SEED = 2009
CONSTANT = 1e-9
"""Smaller than the standard deviation of any channel with two values: one level in one of 10**12 pixels gives 4e-9."""

log = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT", bound=PictureFilesConfig)


class PictureSource(FileSource[ConfigT]):
    """A data set of image files. Subclasses define where the files are and what their names mean."""

    stored_size: ClassVar[int | None] = None
    """Height and width that every image file must have; None: any size."""
    _constant_reported = False

    @abstractmethod
    def listing(self, files: Files) -> PictureListing:
        """List the images and their labels. Raises UserError if `files` do not contain this data set."""

    @override
    def load(self) -> Samples:
        options = {"version": VERSION, "image_size": self.config.image_size}
        opened = self.open_prepared(self.config.name, options, self.build)
        return self.samples(opened, opened.arrays["inputs"])

    def build(self, files: Files, folder: Path) -> dict[str, Any]:
        """Write the pixels of all images. Returns the facts for meta.json."""
        size = self.config.image_size
        work = partial(read_pictures, size=size, stored_size=self.stored_size)
        return self.build_listed(files, folder, work, PART_SIZE, bytes_per_item=3 * size**2)

    def build_listed(
        self, files: Files, folder: Path, work: Callable[..., Part], part_size: int, bytes_per_item: int = 0
    ) -> dict[str, Any]:
        """Write the result of `work(items, files=...)` for all listed images. Returns the facts for meta.json."""
        listing = self.listing(files)
        self.check_classes(listing.class_names, files.shown())
        refuse_bad_files(listing.bad, self.config.on_bad_file)
        with listing.files.readable(folder) as readable:
            bad = build_in_parts(
                folder,
                listing.items,
                partial(work, files=readable),
                part_size=part_size,
                workers=self.prepare_workers,
                title=f"preparing {self.config.name}",
                on_bad_file=self.config.on_bad_file,
                bytes_per_item=bytes_per_item,
            )
        return {**self.facts(folder, listing, bad), "left_out": listing.left_out(files)}

    def facts(self, folder: Path, listing: PictureListing, bad: Sequence[BadFile]) -> dict[str, Any]:
        """The facts for meta.json of a set whose `labels` and `splits` are in `folder`.

        Raises UserError if a class has no training images.
        """
        labels, splits = np.load(folder / "labels.npy"), np.load(folder / "splits.npy")
        counts = np.zeros((len(listing.class_names), len(SPLITS)), dtype=np.int64)
        np.add.at(counts, (labels, splits), 1)
        empty = [name for name, of_class in zip(listing.class_names, counts, strict=True) if of_class[0] == 0]
        if empty:
            raise UserError(f"{listing.files.shown()}: no usable training image of class {listed(empty)}.")
        import PIL

        return {
            "source": listing.files.shown(),
            "class_names": list(listing.class_names),
            "samples": dict(zip(SPLITS, counts.sum(axis=0).tolist(), strict=True)),
            "samples_by_class": counts.tolist(),
            "bad": [[file.path, file.problem] for file in (*listing.bad, *bad)],
            "pillow": PIL.__version__,
        }

    def samples(self, opened: Prepared, inputs: Any, statistics: bool = True, kind: type[Samples] = Samples) -> Samples:
        """The samples of a prepared set, with a validation split held out if the files have none.

        inputs: the images, or an object that is indexed like them. kind: the class of the samples. statistics:
        whether to measure mean and standard deviation of the pixels.
        """
        arrays, facts = opened.arrays, opened.facts
        key = {
            "version": SPLIT_VERSION,
            "of": opened.folder.name,
            "val_fraction": self.config.val_fraction,
            "statistics": statistics,
        }
        build = partial(self._divide, opened, statistics)
        divided = prepared(self.data_dir, f"{self.config.name}-split", key, build, level=logging.DEBUG)
        return kind(
            inputs,
            arrays["labels"],
            divided.arrays["splits"],
            mean=tuple(divided.facts["mean"]),
            std=self.usable_std(divided.facts["std"]),
            class_names=tuple(facts["class_names"]),
            names=Names(arrays["names"]),
            folder=opened.folder,
        )

    def usable_std(self, std: Sequence[float]) -> tuple[float, ...]:
        """The measured `std`, with 1 for a constant channel: its normalised value is then 0, not NaN."""
        constant = [str(channel) for channel, value in enumerate(std) if value < CONSTANT]
        if constant and not self._constant_reported:
            self._constant_reported = True
            log.warning(
                "Channel %s of '%s' has the same value in all training images; its standard deviation is set to 1.",
                ", ".join(constant),
                self.config.name,
            )
        return tuple(1.0 if value < CONSTANT else value for value in std)

    def _divide(self, opened: Prepared, statistics: bool, folder: Path) -> dict[str, Any]:
        labels: NDArray[np.int64] = np.asarray(opened.arrays["labels"])
        splits = np.asarray(opened.arrays["splits"])
        if opened.facts["samples"]["val"] == 0:
            splits = hold_out(labels, splits, self.config.val_fraction, SPLIT_SEED)
        np.save(folder / "splits.npy", splits)
        mean: list[float] = []
        std: list[float] = []
        if statistics:
            mean, std = channel_statistics(opened.arrays["inputs"], np.flatnonzero(splits == 0).astype(np.int64))
        samples = {split: int(np.count_nonzero(splits == number)) for number, split in enumerate(SPLITS)}
        return {"samples": samples, "mean": mean, "std": std}
