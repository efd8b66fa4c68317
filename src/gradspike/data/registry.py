"""The data sets by name, the options of each, and the facts about it that a model needs before any sample is loaded."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gradspike.data.camera_config import CameraConfig
from gradspike.registry import Entry, Registry, Strict


class AugmentConfig(Strict):
    """Random changes of training samples; evaluation samples are never changed."""

    shift: int = Field(default=0, ge=0, le=64)
    """Largest shift in pixels, in both directions of both axes; what moves in is zero (padding plus random crop)."""
    flip: bool = False
    """Mirror half of the samples left to right."""


class DatasetConfig(Strict):
    """What all data sets have in common. The class attributes are facts, the fields are options."""

    kind: ClassVar[Literal["image", "frames"]]
    """image: a sample is a still picture [C, H, W]; frames: it changes in time, [T, C, H, W]."""
    channels: ClassVar[int]
    image_size: ClassVar[int]
    """Height and width in pixels."""
    classes: ClassVar[int]
    max_time_steps: ClassVar[int]

    name: str
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


class ImageConfig(DatasetConfig):
    """Options of still pictures."""

    kind: ClassVar[Literal["image", "frames"]] = "image"
    max_time_steps: ClassVar[int] = 64

    normalize: Literal["standard", "unit"] = "standard"
    """standard: zero mean, unit variance per channel, measured on the training split; unit: 0 to 1."""


class EventsConfig(DatasetConfig):
    """Options of event recordings that are turned into frames."""

    kind: ClassVar[Literal["image", "frames"]] = "frames"
    channels: ClassVar[int] = 2

    bins: Literal["equal_time", "equal_count"] = "equal_time"
    """Frames of equal duration, or frames that hold an equal number of events."""
    count_scale: float = Field(default=1.0, gt=0)
    """Events that make an input of 1.0: counts are divided by it. Silence stays zero (not so with mean, std)."""


class DigitsConfig(ImageConfig):
    """scikit-learn's 1,797 scanned digits of 8x8 pixels."""

    channels: ClassVar[int] = 1
    image_size: ClassVar[int] = 8
    classes: ClassVar[int] = 10

    name: Literal["digits"] = "digits"
    augment: AugmentConfig = AugmentConfig(shift=1)


class DigitsEventsConfig(EventsConfig):
    """The digits moved along three saccades of 100 ms each in front of a simulated event camera of 24x24 pixels."""

    image_size: ClassVar[int] = 24
    classes: ClassVar[int] = 10
    max_time_steps: ClassVar[int] = 100

    name: Literal["digits_events"] = "digits_events"
    augment: AugmentConfig = AugmentConfig(shift=2)
    camera: CameraConfig = CameraConfig()

    def time_steps_reason(self) -> str:
        """Why there is an upper limit, as a sentence."""
        return "a recording lasts 300 ms, and a frame shorter than 3 ms holds next to no events."


DATASETS: Registry[DatasetConfig] = Registry(
    "dataset",
    {
        "digits": Entry(DigitsConfig, "gradspike.data.digits:Digits"),
        "digits_events": Entry(DigitsEventsConfig, "gradspike.data.digits_events:DigitsEvents"),
    },
)
