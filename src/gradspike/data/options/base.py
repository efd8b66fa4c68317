"""Options common to all data sets, and the properties that a model needs before any sample is loaded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt
from typing_extensions import override

from gradspike.data.options.rand_augment import RandPolicy
from gradspike.registry import Strict
from gradspike.touches import Budget, Shown, Speed, Split, Start, Touches


class AugmentConfig(Strict):
    """Random augmentation of training samples. Validation and test samples are never augmented."""

    touches: ClassVar[Touches] = Touches.RESULT

    shift: int = Field(default=0, ge=0, le=64)
    """Largest shift in pixels along each axis; zeros move in (padding and random crop)."""
    flip: bool = False
    """Mirror half of the samples horizontally."""
    cutout: int = Field(default=0, ge=0, le=512)
    """Side in pixels of a square erased at a random position (DeVries & Taylor 2017); 0: none."""

    @property
    def policy(self) -> str | None:
        """AutoAugment's policy (images)."""
        return None

    @property
    def rand_policy(self) -> RandPolicy | None:
        """RandAugment's policy (images)."""
        return None

    @property
    def jitter(self) -> float:
        """Largest change of brightness, contrast and saturation (images)."""
        return 0.0

    @property
    def erasing(self) -> tuple[float, Literal["zero", "channel", "pixel"]]:
        """Share of samples in which a rectangle is erased, and with what it is filled (images)."""
        return 0.0, "zero"

    @property
    def largest_roll(self) -> int:
        """Largest circular shift in pixels (event frames)."""
        return 0

    @property
    def neuromorphic(self) -> bool:
        """Whether to use neuromorphic data augmentation (event frames)."""
        return False


class DatasetConfig(Strict):
    """Options of every data set. Class attributes are fixed properties, fields are options."""

    touches: ClassVar[Touches] = Touches.DATA

    kind: ClassVar[Literal["image", "frames"]]
    """image: a sample is a still image [C, H, W]; frames: a sequence of frames [T, C, H, W]."""
    channels: ClassVar[int]
    has_space: ClassVar[bool] = True
    """Whether samples have rows and columns. Without them, their channels are those of one pixel."""
    max_time_steps: ClassVar[int]

    name: str
    image_size: PositiveInt
    """Height and width of the network's input in pixels."""
    classes: PositiveInt
    batch_size: Budget[int] = Field(default=64, ge=1)
    """Training samples per optimiser step, over all devices."""
    eval_batch_size: Speed[int] = Field(default=256, ge=1)
    """Largest batch in validation and test, over all devices."""
    workers: Shown[int] = Field(default=0, ge=0, le=256)
    """Loader processes per device; 0: load in the training process, which is fastest for a set that fits in memory."""
    augment: AugmentConfig = AugmentConfig()

    @property
    def divisor(self) -> float | None:
        """Divisor of the stored values; None: they are normalised by mean and standard deviation."""
        return 255.0

    @property
    def by_peak(self) -> bool:
        """Whether each sample is divided by its largest value."""
        return False

    @property
    def compressed(self) -> bool:
        """Whether samples are stored compressed."""
        return False

    @property
    def limit(self) -> int | None:
        """Training samples to use per class; None: all."""
        return None

    def statistics(
        self, measured: tuple[tuple[float, ...], tuple[float, ...]]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel for normalisation: `measured` on the training split, or fixed."""
        return measured

    def check_time_steps(self, time_steps: int) -> None:
        """Raise ValueError unless the data set supports `time_steps` time steps."""
        if not 1 <= time_steps <= self.max_time_steps:
            raise ValueError(
                f"time_steps={time_steps}: the data set '{self.name}' allows 1 to {self.max_time_steps}; "
                f"{self.time_steps_reason()}"
            )

    def time_steps_reason(self) -> str:
        """The reason for the upper limit, as the end of a sentence."""
        return "more steps add nothing to a still image."


class FilesConfig(DatasetConfig):
    """Options of data sets read from files."""

    source: Shown[Annotated[str, Field(min_length=1)] | None] = None
    """Folder or archive (zip, tar) with the files; null: search data_dir for the usual names."""
    download: Shown[bool] = False
    """Download the official files if they are missing."""
    on_bad_file: Start[Literal["error", "skip"]] = "error"
    """error: an unusable file stops the preparation; skip: unusable files are left out and listed."""
    val_fraction: Split[float] = Field(default=0.1, ge=0, lt=1)
    """Share of each class's training samples to hold out for validation if the source has no validation split; 0: train
    on all samples and report the last epoch."""
    train_per_class: Split[PositiveInt | None] = None
    """Training samples to use per class; null: all."""

    @property
    @override
    def limit(self) -> int | None:
        return self.train_per_class
