"""Options of data sets of event recordings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from typing_extensions import override

from gradspike.data.options.base import AugmentConfig, DatasetConfig, FilesConfig
from gradspike.data.options.camera import CameraConfig
from gradspike.touches import Split

Chip = Literal["dvs128", "davis128", "davis208", "davis240", "davis346", "davis640", "dvs640"]

Milliseconds = Annotated[float, Field(ge=0.001, le=1e12)]
"""At least one microsecond, the resolution of timestamps; at most 30 years."""


class EventAugmentConfig(AugmentConfig):
    """Random augmentation of event frames, the same for all frames of a sample."""

    roll: int = Field(default=0, ge=0, le=64)
    """Largest circular shift in pixels along each axis."""
    nda: bool = False
    """Neuromorphic data augmentation (Li et al., ECCV 2022): roll, rotation, shear or cutout, drawn for each sample."""

    @property
    @override
    def largest_roll(self) -> int:
        return self.roll

    @property
    @override
    def neuromorphic(self) -> bool:
        return self.nda


class EventsConfig(DatasetConfig):
    """Options of event recordings, which are converted to frames."""

    kind: ClassVar[Literal["image", "frames"]] = "frames"
    channels: ClassVar[int] = 2
    max_time_steps: ClassVar[int] = 1000

    bins: Literal["equal_time", "equal_count"] = "equal_time"
    """equal_time: frames of equal duration; equal_count: frames with equal numbers of events."""
    count_scale: float = Field(default=1.0, gt=0)
    """Divisor of the event counts: this many events give an input of 1.0; zero events give 0."""
    augment: EventAugmentConfig = EventAugmentConfig()

    @property
    @override
    def divisor(self) -> float | None:
        return self.count_scale

    @override
    def time_steps_reason(self) -> str:
        """Why there is an upper limit, as a sentence."""
        return "shorter frames contain hardly any events."


class DigitsEventsConfig(EventsConfig):
    """The digits, moved along three saccades of 100 ms each and recorded by a simulated event camera of 24x24
    pixels."""

    max_time_steps: ClassVar[int] = 100

    name: Literal["digits_events"] = "digits_events"
    image_size: Literal[24] = 24
    classes: Literal[10] = 10
    augment: EventAugmentConfig = EventAugmentConfig(shift=2)
    camera: CameraConfig = CameraConfig()

    def time_steps_reason(self) -> str:
        """Why there is an upper limit, as a sentence."""
        return "a recording lasts 300 ms, and frames shorter than 3 ms contain hardly any events."


class RecordingsConfig(EventsConfig, FilesConfig):
    """Options of event recordings in files."""

    bins: Literal["equal_time", "equal_count"] = "equal_count"
    binning: Literal["count", "binary"] = "count"
    """count: a pixel's value is its number of events; binary: 1 for one or more events."""
    resize: Literal["events", "tet"] = "events"
    """How to scale the sensor's size to image_size. events: move each event to the pixel that covers its position,
    without losing any; tet: interpolate frames of the sensor's size as in the released TET code."""
    normalize: Literal["none", "peak"] = "none"
    """none: counts divided by count_scale; peak: each sample divided by its largest count."""
    window_ms: Milliseconds | None = None
    """Length in milliseconds of the windows that recordings are cut into; null: one sample per recording."""
    stride_ms: Milliseconds | None = None
    """Time in milliseconds from the start of one window to the next; null: window_ms, so windows do not overlap."""
    on_disorder: Literal["error", "sort"] = "error"
    """error: a recording whose time goes backwards is a bad file; sort: jitter of up to 10 ms is sorted and counted."""
    on_gap: Literal["error", "keep"] = "error"
    """error: with bins=equal_time or windows, a recording with a gap longer than the rest of the recording, such as a
    clock jump, is a bad file; keep: the gap is real."""
    max_left_out: float = Field(default=0.05, ge=0, le=1)
    """Largest share of a recording's events that may be left out (pulses, events marked as invalid, unknown addresses);
    more make it a bad file."""

    @property
    @override
    def divisor(self) -> float | None:
        return 255 * self.count_scale if self.resize == "tet" else self.count_scale  # TET frames are stored times 255

    @property
    @override
    def by_peak(self) -> bool:
        return self.normalize == "peak"

    @model_validator(mode="after")
    def _stride_needs_a_window(self) -> RecordingsConfig:
        if self.stride_ms is not None and self.window_ms is None:
            raise ValueError("stride_ms needs window_ms, the length of the windows")
        return self

    @model_validator(mode="after")
    def _one_division(self) -> RecordingsConfig:
        if self.count_scale != 1.0:
            if self.normalize == "peak":
                raise ValueError("normalize=peak divides by the largest count: leave count_scale at 1.0")
            if self.resize == "tet":
                raise ValueError("resize=tet gives frames in the range 0 to 1: leave count_scale at 1.0")
        return self


class NumberedConfig(RecordingsConfig):
    """Options of numbered recordings without an official split."""

    folds: Split[Annotated[int, Field(ge=2, le=100)]] = 10
    """Number of equal folds that each class's files are divided into, by file number."""
    test_fold: Split[NonNegativeInt | None] = None
    """Fold used as the test split; null: the last one (9:1, as in the literature)."""
    augment: EventAugmentConfig = EventAugmentConfig(flip=True, roll=5)

    @model_validator(mode="after")
    def _fold_exists(self) -> NumberedConfig:
        if self.test_fold is not None and self.test_fold >= self.folds:
            raise ValueError(f"test_fold={self.test_fold}: must be 0 to {self.folds - 1} with folds={self.folds}")
        return self


class Cifar10DvsConfig(NumberedConfig):
    """CIFAR10-DVS (Li et al., Front. Neurosci. 2017): 10,000 recordings of a DVS128, 10 classes, no official split."""

    name: Literal["cifar10dvs"] = "cifar10dvs"
    image_size: PositiveInt = 48
    classes: PositiveInt = 10
    batch_size: PositiveInt = 100


class NCaltech101Config(NumberedConfig):
    """N-Caltech101 (Orchard et al., Front. Neurosci. 2015): 8,709 recordings of up to 240x180 pixels, 101 classes, no
    official split."""

    name: Literal["ncaltech101"] = "ncaltech101"
    image_size: PositiveInt = 48
    classes: PositiveInt = 101


class Cifar10DvsSimConfig(Cifar10DvsConfig):
    """CIFAR-10's images, moved as for CIFAR10-DVS and recorded by the simulated event camera."""

    name: Literal["cifar10dvs_sim"] = "cifar10dvs_sim"  # type: ignore[assignment]
    per_class: PositiveInt = 1000
    """Recordings per class."""
    camera: CameraConfig = CameraConfig(threshold=0.2)
    """Natural images have less contrast than the digits, so the threshold is half as high: about 170,000 events per
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


class ESImageNetConfig(FilesConfig):
    """ES-ImageNet (Lin et al., Front. Neurosci. 2021): about 1.3 million images of ImageNet as events in 8 time steps,
    1,000 classes."""

    kind: ClassVar[Literal["image", "frames"]] = "frames"
    channels: ClassVar[int] = 2
    max_time_steps: ClassVar[int] = 8

    name: Literal["es_imagenet"] = "es_imagenet"
    image_size: Literal[224] = 224
    """Rows and columns 16 to 239 of the 256x256 pixels, as the authors' loader crops them."""
    classes: PositiveInt = 1000
    batch_size: PositiveInt = 256
    val_fraction: Split[float] = Field(default=0.01, ge=0, lt=1)
    augment: EventAugmentConfig = EventAugmentConfig(flip=True)

    @property
    @override
    def divisor(self) -> float | None:
        return 1.0

    @override
    def check_time_steps(self, time_steps: int) -> None:
        super().check_time_steps(time_steps)
        if self.max_time_steps % time_steps:
            raise ValueError(
                f"time_steps={time_steps}: the data set '{self.name}' has {self.max_time_steps} time steps, which can "
                "be joined to 1, 2 or 4; choose 1, 2, 4 or 8"
            )

    @override
    def time_steps_reason(self) -> str:
        """Why there is an upper limit, as a sentence."""
        return "its files have 8 time steps."


class EventFolderConfig(RecordingsConfig):
    """Your own recordings: `split/class/*.{aedat4,aedat,bin,npz,npy,dat}` in a folder, zip or tar file."""

    name: Literal["event_folder"] = "event_folder"
    image_size: PositiveInt
    classes: PositiveInt
    sensor_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 128
    """Size of the sensor in pixels: one number if it is square, else [width, height]. Frames are square, so the axes of
    a sensor that is not square are scaled separately."""
    chip: Chip | None = None
    """Sensor of AEDAT 2.0 files whose header does not name a known sensor; null: use the header, or else a DVS128."""
    train_folder: Split[str] = "train"
    """Folder of the training recordings."""
    val_folder: Split[str | None] = "val"
    """Folder of the validation recordings; if it is missing, val_fraction of the training recordings is held out."""
    test_folder: Split[str] = "test"
    """Folder of the test recordings."""

    @model_validator(mode="after")
    def _splits_apart(self) -> EventFolderConfig:
        folders = [self.train_folder, self.val_folder, self.test_folder]
        if len(set(folders)) < len(folders):
            named = ", ".join(str(folder) for folder in folders)
            raise ValueError(f"train_folder, val_folder and test_folder must differ: they are {named}")
        return self
