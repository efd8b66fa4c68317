"""The digits as floats, some of them NaN or infinite."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from gradspike.data.options.pictures import DigitsConfig
from gradspike.data.sets.digits import Digits
from gradspike.data.source import Samples, Split

VALUES = {"undefined": math.nan, "infinite": math.inf, "negative": -math.inf}


class BadDigitsConfig(DigitsConfig):
    name: str  # type: ignore[assignment]
    bad: Literal["undefined", "infinite", "negative"] = "undefined"
    bad_split: Split = "test"
    bad_samples: int = 1
    bad_pixels: int = 1


class BadDigits(Digits):
    """The last `bad_samples` samples of a split have `bad_pixels` NaN or infinite pixels."""

    Config = BadDigitsConfig
    config: BadDigitsConfig

    def load(self) -> Samples:
        samples = super().load()
        inputs = np.array(samples.inputs, dtype=np.float32)
        chosen = samples.indices(self.config.bad_split)[-self.config.bad_samples :]
        inputs.reshape(len(inputs), -1)[chosen, : self.config.bad_pixels] = VALUES[self.config.bad]
        return dataclasses.replace(samples, inputs=inputs)
