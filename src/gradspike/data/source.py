"""What a data set has to provide, so that everything behind it (order, augmentation, resume) is common to all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradspike.data.random import CounterRandom
from gradspike.data.registry import DatasetConfig

SPLITS: tuple[Split, ...] = ("train", "val", "test")
Split = Literal["train", "val", "test"]
ConfigT = TypeVar("ConfigT", bound=DatasetConfig)


@dataclass(frozen=True)
class Samples:
    """All samples of a data set, of all splits.

    inputs: uint8 [N, C, H, W] (images) or [N, T, C, H, W] (frames), usually memory-mapped; anything that an int64 array
    can index works. labels: int64 [N]. splits: uint8 [N], positions in SPLITS. mean, std: per channel, of inputs / 255
    over the training split (images only).
    """

    inputs: Any
    labels: NDArray[np.int64]
    splits: NDArray[np.uint8]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def indices(self, split: Split) -> NDArray[np.int64]:
        """The samples of a split, in ascending order."""
        return np.flatnonzero(self.splits == SPLITS.index(split)).astype(np.int64)


class Source(ABC, Generic[ConfigT]):
    """A data set. Its class attribute `Config` is the class of its options, derived from DatasetConfig."""

    Config: ClassVar[type[DatasetConfig]]

    def __init__(self, config: ConfigT, time_steps: int, data_dir: Path) -> None:
        self.config = config
        self.time_steps = time_steps
        self.data_dir = data_dir

    @abstractmethod
    def load(self) -> Samples:
        """Open the prepared samples, preparing them first where needed. Raises UserError for what the user can mend."""


def stratified_split(labels: NDArray[np.int64], val: float, test: float, seed: int) -> NDArray[np.uint8]:
    """Split every class in the same proportions: `val` and `test` are fractions, the seed is not that of a run.

    A sample's place depends on a hash of (seed, its index), so a split is the same on every machine and with every
    library version.
    """
    splits = np.zeros(len(labels), dtype=np.uint8)
    rank_key = CounterRandom.per_sample(seed, 0, np.arange(len(labels), dtype=np.int64)).bits(0)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(rank_key[members], kind="stable")]
        n_val, n_test = round(val * len(members)), round(test * len(members))
        splits[members[:n_val]] = SPLITS.index("val")
        splits[members[n_val : n_val + n_test]] = SPLITS.index("test")
    return splits
