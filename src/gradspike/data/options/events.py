"""Options of data sets of event recordings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from gradspike.data.options.base import AugmentConfig, DatasetConfig, FilesConfig
from gradspike.data.options.camera import CameraConfig

Chip = Literal["dvs128", "davis128", "davis208", "davis240", "davis346", "davis640", "dvs640"]

Milliseconds = Annotated[float, Field(ge=0.001)]
"""Times are counted in whole microseconds."""


class EventAugmentConfig(AugmentConfig):
    """Random changes of event frames, the same for all frames of a sample."""

    roll: int = Field(default=0, ge=0, le=64)
    """Largest shift in pixels in both directions of both axes; what leaves on one side comes in on the other."""
    nda: bool = False
    """Neuromorphic data augmentation (Li et al., ECCV 2022): one of roll, rotation, shear and cutout for each
    sample."""


class EventsConfig(DatasetConfig):
    """Options of event recordings that are turned into frames."""

    kind: ClassVar[Literal["image", "frames"]] = "frames"
    channels: ClassVar[int] = 2
    max_time_steps: ClassVar[int] = 1000

    bins: Literal["equal_time", "equal_count"] = "equal_time"
    """Frames of equal duration, or frames that hold an equal number of events."""
    count_scale: float = Field(default=1.0, gt=0)
    """Events that make an input of 1.0: counts are divided by it. Silence stays zero (not so with mean, std)."""
    augment: EventAugmentConfig = EventAugmentConfig()

    def time_steps_reason(self) -> str:
        """Why there is an upper limit, as a sentence."""
        return "frames get too short to hold events."


class DigitsEventsConfig(EventsConfig):
    """The digits moved along three saccades of 100 ms each in front of a simulated event camera of 24x24 pixels."""

    max_time_steps: ClassVar[int] = 100

    name: Literal["digits_events"] = "digits_events"
    image_size: Literal[24] = 24
    classes: Literal[10] = 10
    augment: EventAugmentConfig = EventAugmentConfig(shift=2)
    camera: CameraConfig = CameraConfig()

    def time_steps_reason(self) -> str:
        """Why there is an upper limit, as a sentence."""
        return "a recording lasts 300 ms, and a frame shorter than 3 ms holds next to no events."


class RecordingsConfig(EventsConfig, FilesConfig):
    """Options of event recordings in files."""

    bins: Literal["equal_time", "equal_count"] = "equal_count"
    binning: Literal["count", "binary"] = "count"
    """count: a pixel's value is the number of its events; binary: 1 for one event or many."""
    resize: Literal["events", "tet"] = "events"
    """From the sensor's size to image_size. events: every event is moved to the pixel that covers its place, none is
    lost; tet: frames at the sensor's size, then the interpolation of the released TET code."""
    normalize: Literal["none", "peak"] = "none"
    """none: counts (divided by count_scale); peak: each sample divided by its largest count."""
    window_ms: Milliseconds | None = None
    """Cut each recording into windows of this length; null: a recording is one sample."""
    stride_ms: Milliseconds | None = None
    """From the start of one window to that of the next; null: window_ms, so that none overlap."""
    on_disorder: Literal["error", "sort"] = "error"
    """error: a recording whose time goes backwards is a bad file; sort: jitter of up to 10 ms is sorted and counted."""
    on_gap: Literal["error", "keep"] = "error"
    """error: with bins=equal_time or windows, a recording with a gap longer than all the rest, such as a jump of the
    clock, is a bad file; keep: the gap is real."""
    max_left_out: float = Field(default=0.05, ge=0, le=1)
    """Largest share of a recording's events that may be left out (pulses, events marked as invalid, unknown addresses);
    more make it a bad file."""

    @model_validator(mode="after")
    def _stride_needs_a_window(self) -> RecordingsConfig:
        if self.stride_ms is not None and self.window_ms is None:
            raise ValueError("stride_ms needs window_ms, the length of a window")
        return self

    @model_validator(mode="after")
    def _one_division(self) -> RecordingsConfig:
        if self.count_scale != 1.0:
            if self.normalize == "peak":
                raise ValueError("normalize=peak divides by the largest count: count_scale has to stay 1.0")
            if self.resize == "tet":
                raise ValueError("resize=tet gives frames of 0 to 1: count_scale has to stay 1.0")
        return self


class Cifar10DvsConfig(RecordingsConfig):
    """CIFAR10-DVS (Li et al., Front. Neurosci. 2017): 10,000 recordings of a DVS128, 10 classes, no official split."""

    name: Literal["cifar10dvs"] = "cifar10dvs"
    image_size: PositiveInt = 48
    classes: PositiveInt = 10
    batch_size: PositiveInt = 100
    folds: Annotated[int, Field(ge=2, le=100)] = 10
    """Each class's files, by their number, are divided into this many equal runs; one of them is the test split."""
    test_fold: NonNegativeInt | None = None
    """Which run is the test split; null: the last one (9:1 as in the literature)."""
    augment: EventAugmentConfig = EventAugmentConfig(flip=True, roll=5)

    @model_validator(mode="after")
    def _fold_exists(self) -> Cifar10DvsConfig:
        if self.test_fold is not None and self.test_fold >= self.folds:
            raise ValueError(f"test_fold={self.test_fold}: must be 0 to {self.folds - 1} with folds={self.folds}")
        return self


class Cifar10DvsSimConfig(Cifar10DvsConfig):
    """CIFAR-10's pictures before the simulated event camera, moved as in the making of CIFAR10-DVS."""

    name: Literal["cifar10dvs_sim"] = "cifar10dvs_sim"  # type: ignore[assignment]
    per_class: PositiveInt = 1000
    """Recordings of each class."""
    camera: CameraConfig = CameraConfig(threshold=0.2)
    """Natural pictures have less contrast than written digits, so the threshold is half theirs: some 170,000 events a
    recording."""


class DvsGestureConfig(RecordingsConfig):
    """DVS128 Gesture (Amir et al., CVPR 2017): 1,176 + 288 recordings of 11 hand gestures."""

    name: Literal["dvs_gesture"] = "dvs_gesture"
    image_size: PositiveInt = 48
    classes: PositiveInt = 11
    batch_size: PositiveInt = 16
    augment: EventAugmentConfig = EventAugmentConfig(roll=5)


class NMnistConfig(RecordingsConfig):
    """N-MNIST (Orchard et al., Front. Neurosci. 2015): 60,000 + 10,000 recordings of 34x34 pixels, 10 digits."""

    name: Literal["nmnist"] = "nmnist"
    image_size: PositiveInt = 34
    classes: PositiveInt = 10
    bins: Literal["equal_time", "equal_count"] = "equal_time"
    augment: EventAugmentConfig = EventAugmentConfig(shift=2)


class EventFolderConfig(RecordingsConfig):
    """Own recordings: `split/class/*.{aedat4,aedat,bin,npz,npy,dat}` in a folder, a zip or a tar file."""

    name: Literal["event_folder"] = "event_folder"
    image_size: PositiveInt
    classes: PositiveInt
    sensor_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 128
    """Pixels of the sensor: one number for a square one, or [width, height]. Frames are square; a sensor that is not
    gets its axes scaled apart."""
    chip: Chip | None = None
    """Sensor of AEDAT 2.0 files whose header does not name a known one; null: as in the header, or a DVS128."""
    train_folder: str = "train"
    """Name of the folder that holds the training recordings."""
    val_folder: str | None = "val"
    """Name of the validation recordings' folder; where it is missing, val_fraction is held out of the training ones."""
    test_folder: str = "test"
    """Name of the test recordings' folder."""

    @model_validator(mode="after")
    def _splits_apart(self) -> EventFolderConfig:
        folders = [self.train_folder, self.val_folder, self.test_folder]
        if len(set(folders)) < len(folders):
            named = ", ".join(str(folder) for folder in folders)
            raise ValueError(f"train_folder, val_folder and test_folder must differ: they are {named}")
        return self
