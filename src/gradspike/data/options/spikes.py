"""Options of data sets of spike trains: channels of spikes, such as those of an artificial cochlea."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from typing_extensions import override

from gradspike.data.options.base import AugmentConfig, FilesConfig

UNITS = 700
"""Channels of the artificial cochlea (Cramer et al., TNNLS 2022)."""


class SpikeTrainAugmentConfig(AugmentConfig):
    """Spike trains have no augmentation: those of images move pixels."""

    @model_validator(mode="after")
    def _none(self) -> Self:
        for name in ("shift", "flip", "cutout"):
            if getattr(self, name):
                raise ValueError(f"{name}: is for images and event frames; spike trains have no rows and columns")
        return self


class SpikeTrainsConfig(FilesConfig):
    """Options of spike trains in HDF5 files. They become counts [T, B, channels, 1, 1]: channels of one pixel."""

    kind: ClassVar[Literal["image", "frames"]] = "frames"
    max_time_steps: ClassVar[int] = 1000
    has_space: ClassVar[bool] = False

    image_size: Literal[1] = 1
    """Channels have no rows and columns."""
    pool_channels: PositiveInt = 1
    """Neighbouring channels to sum into one; a divisor of 700, such as 5 for 140 channels."""
    window_s: float = Field(ge=0.001, le=3600)
    """Seconds from the start of a recording that the time steps divide equally. Later spikes are left out and
    counted."""
    binning: Literal["count", "binary"] = "count"
    """count: a value is the number of spikes in a time step; binary: 1 for one or more spikes."""
    count_scale: float = Field(default=1.0, gt=0)
    """Divisor of the counts: this many spikes give an input of 1.0."""
    on_disorder: Literal["error", "sort"] = "error"
    """error: a recording whose times are not sorted is a bad file; sort: sort its spikes and count those that were out
    of order."""
    max_left_out: float = Field(default=0.05, ge=0, le=1)
    """Largest share of a recording's spikes that may lie after window_s; more make it a bad file."""
    augment: SpikeTrainAugmentConfig = SpikeTrainAugmentConfig()

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the network's input."""
        return UNITS // self.pool_channels

    @property
    @override
    def divisor(self) -> float | None:
        return self.count_scale

    @override
    def time_steps_reason(self) -> str:
        """Why there is an upper limit, as a sentence."""
        return "shorter steps contain hardly any spikes."

    @model_validator(mode="after")
    def _channels_divide(self) -> Self:
        if UNITS % self.pool_channels:
            raise ValueError(f"pool_channels={self.pool_channels}: must divide {UNITS}, for example 5 or 10")
        return self


class ShdConfig(SpikeTrainsConfig):
    """Spiking Heidelberg Digits (Cramer et al., TNNLS 2022): 8,156 + 2,264 spoken digits in German and English, 20
    classes."""

    name: Literal["shd"] = "shd"
    classes: PositiveInt = 20
    window_s: float = Field(default=1.4, ge=0.001, le=3600)


class SscConfig(SpikeTrainsConfig):
    """Spiking Speech Commands (Cramer et al., TNNLS 2022): 75,466 + 9,981 + 20,382 spoken words, 35 classes."""

    name: Literal["ssc"] = "ssc"
    classes: PositiveInt = 35
    window_s: float = Field(default=1.0, ge=0.001, le=3600)
