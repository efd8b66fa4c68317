"""What the options of all data sets have in common, and the facts that a model needs before any sample is loaded."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from gradspike.registry import Strict


class AugmentConfig(Strict):
    """Random changes of training samples; evaluation samples are never changed."""

    shift: int = Field(default=0, ge=0, le=64)
    """Largest shift in pixels, in both directions of both axes; what moves in is zero (padding plus random crop)."""
    flip: bool = False
    """Mirror half of the samples left to right."""
    cutout: int = Field(default=0, ge=0, le=512)
    """Side in pixels of the square that is blanked at a random place (DeVries & Taylor 2017); 0 for none."""


class DatasetConfig(Strict):
    """What all data sets have in common. The class attributes are facts, the fields are options."""

    kind: ClassVar[Literal["image", "frames"]]
    """image: a sample is a still picture [C, H, W]; frames: it changes in time, [T, C, H, W]."""
    channels: ClassVar[int]
    max_time_steps: ClassVar[int]

    name: str
    image_size: PositiveInt
    """Height and width in pixels, as the network sees them."""
    classes: PositiveInt
    batch_size: int = Field(default=64, ge=1)
    """Training samples an optimiser step sees, over all devices together."""
    eval_batch_size: int = Field(default=256, ge=1)
    """Upper limit of the batch size in validation and test, over all devices together."""
    workers: int = Field(default=0, ge=0, le=256)
    """Loader processes a device; 0 reads in the training process, which is fastest for a set that fits in memory."""
    augment: AugmentConfig = AugmentConfig()

    def check_time_steps(self, time_steps: int) -> None:
        """Raise ValueError unless samples can be presented in `time_steps` steps."""
        if not 1 <= time_steps <= self.max_time_steps:
            raise ValueError(
                f"time_steps={time_steps} does not suit the data set '{self.name}': {self.time_steps_reason()} "
                f"Choose 1 to {self.max_time_steps}."
            )

    def time_steps_reason(self) -> str:
        """Why there is an upper limit, as a sentence."""
        return "a still picture gains nothing from more steps."


class FilesConfig(DatasetConfig):
    """Options of every data set that is read from files somebody brings or downloads."""

    source: str | None = None
    """The folder or archive (zip, tar) that holds the files; null: looked for in data_dir under its usual names."""
    download: bool = False
    """Fetch the files from their official place where they are missing."""
    on_bad_file: Literal["error", "skip"] = "error"
    """What happens to a file that cannot be used: the preparation ends, or it is left out and listed."""
    val_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of each class's training samples that is held out for validation where the source has no such split of its
    own; 0 trains on all of them and reports the last epoch only."""
    train_per_class: PositiveInt | None = None
    """Use only this many training samples of each class; null for all."""
