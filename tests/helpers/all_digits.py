"""Data sets without a validation or a test split."""

from __future__ import annotations

import dataclasses

from gradspike.data.options.pictures import DigitsConfig
from gradspike.data.sets.digits import Digits
from gradspike.data.source import SPLITS, Samples


class AllDigitsConfig(DigitsConfig):
    name: str  # type: ignore[assignment]


class AllDigits(Digits):
    """The digits, those of the validation split among the training samples."""

    Config = AllDigitsConfig

    def load(self) -> Samples:
        samples = super().load()
        splits = samples.splits.copy()
        splits[splits == SPLITS.index("val")] = SPLITS.index("train")
        return dataclasses.replace(samples, splits=splits)


class UntestedDigits(AllDigits):
    """Without a test split."""

    def load(self) -> Samples:
        samples = super().load()
        return dataclasses.replace(samples, splits=samples.splits * 0)
