"""The interface of data sets, so order, augmentation and resuming work the same for all of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradspike.cores import cores
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.options.base import DatasetConfig
from gradspike.errors import UserError
from gradspike.json_text import to_json
from gradspike.shown import counted, printable
from gradspike.started import typed_command

SPLITS: tuple[Split, ...] = ("train", "val", "test")
Split = Literal["train", "val", "test"]
UNUSED = 255
"""Value in `splits` of a sample that is in no split."""
LIMIT_SEED = 1
ConfigT = TypeVar("ConfigT", bound=DatasetConfig)


@dataclass(frozen=True)
class Samples:
    """All samples of a data set, of all splits.

    inputs: uint8 [N, C, H, W] (images) or [N, T, C, H, W] (frames), usually memory-mapped; any object that an int64
    array can index. labels: int64 [N]. splits: uint8 [N], indices into SPLITS. mean, std: per channel, of inputs / 255
    over the training split (images only). class_names: by label. names: the file of each sample, with its window if a
    recording was cut; empty if samples do not come from files. folder: the prepared set on disk.
    """

    inputs: Any
    labels: NDArray[np.int64]
    splits: NDArray[np.uint8]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    names: Sequence[str] = ()
    folder: Path | None = None

    def indices(self, split: Split) -> NDArray[np.int64]:
        """The samples of a split in ascending order; `val` may be empty."""
        return np.flatnonzero(self.splits == SPLITS.index(split)).astype(np.int64)

    def fetch(self, indices: NDArray[np.int64], moment: tuple[int, int] | None = None) -> NDArray[Any]:
        """The stored samples `indices`. moment: (seed, epoch) of a training batch, for random crops."""
        return np.asarray(self.inputs[indices])

    def digest(self) -> str:
        """A digest of names, labels, splits and the contents of up to 64 samples, independent of their location."""
        digest = hashlib.sha256(repr(self.class_names).encode("utf-8", "surrogateescape"))
        for name in self.names:
            digest.update(f"{name}\0".encode("utf-8", "surrogateescape"))
        chosen = np.unique(np.linspace(0, len(self.labels) - 1, 64).astype(np.int64))
        for array in (self.labels, self.splits, self.fetch(chosen)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def check(self, classes: int, what: str) -> None:
        """Raise UserError for invalid splits or labels outside 0 to `classes` - 1. what: the set's name for
        messages."""
        labels, splits = np.asarray(self.labels), np.asarray(self.splits)
        where = "" if self.folder is None else f" in {self.folder}"
        if len({len(labels), len(splits), *([len(self.names)] if len(self.names) else [])}) > 1:
            raise UserError(
                f"{what}{where} has {counted(len(labels), 'label')}, {counted(len(splits), 'split')} and "
                f"{counted(len(self.names), 'name')}."
            )
        if labels.dtype.kind not in "iu":
            raise UserError(f"{what}{where} has labels of type {labels.dtype}; they must be whole numbers.")
        for name, values, good in (
            ("label", labels, (labels >= 0) & (labels < classes)),
            ("split", splits, (splits < len(SPLITS)) | (splits == UNUSED)),
        ):
            outside = np.flatnonzero(~good)
            if len(outside):
                first = int(outside[0])
                file = f" ({printable(self.names[first])})" if len(self.names) else ""
                last = classes - 1 if name == "label" else len(SPLITS) - 1
                raise UserError(
                    f"{what}{where} has {len(outside):,} of {len(values):,} {name}s outside 0 to {last}. The first is "
                    f"{values[first]}, of sample {first:,}{file}."
                )

    def limited(self, train_per_class: int) -> Samples:
        """The same samples with at most `train_per_class` training samples of each class; the rest are in no split.

        A hash of the index selects the samples, independent of the run's seed. Larger selections contain smaller ones.
        """
        splits = self.splits.copy()
        train = self.indices("train")
        train = train[np.argsort(CounterRandom.per_sample(LIMIT_SEED, 0, train).bits(0), kind="stable")]
        for members in by_label(self.labels, train):
            splits[members[train_per_class:]] = UNUSED
        return replace(self, splits=splits)


class Source(ABC, Generic[ConfigT]):
    """A data set. `Config` is the class of its options, a subclass of DatasetConfig."""

    Config: ClassVar[type[DatasetConfig]]

    def __init__(self, config: ConfigT, time_steps: int, data_dir: Path) -> None:
        self.config = config
        self.time_steps = time_steps
        self.data_dir = data_dir
        self.prepare_workers = min(4, cores())
        """Number of processes that prepare the files."""
        self.refresh = False
        """Whether to check the name, size and time of every file even if the folder seems unchanged."""

    @abstractmethod
    def load(self) -> Samples:
        """Open the prepared samples; prepare them first if needed. Raises UserError for errors the user can fix."""

    def checked(self) -> Samples:
        """`load`, with the labels checked. Raises UserError for labels or splits out of range."""
        samples = self.load()
        samples.check(self.config.classes, f"The data set '{self.config.name}'")
        return samples

    def frames(self, recording: Any, span_us: tuple[int, int] | None = None) -> NDArray[Any]:
        """The stored sample [T, 2, image_size, image_size] of a Recording, made as the prepared ones are.

        span_us: start and end of the sample in microseconds; None: those of a whole recording. Raises UserError if the
        data set is not made of events, ValueError for events that do not fit.
        """
        raise UserError(f"The data set '{self.config.name}' does not turn events into frames: give it frames.")

    def prepare_command(self) -> str:
        """The command that prepares this data set, to paste into a shell."""
        words = [f"dataset={self.config.name}", f"data_dir={self.data_dir}", f"time_steps={self.time_steps}"]
        options = self.config.model_dump(mode="json", exclude_defaults=True, exclude={"name", "augment", "camera"})
        words += [f"dataset.{name}={_typed(value)}" for name, value in options.items()]
        return typed_command("prepare", *words)


def _typed(value: object) -> str:
    return value if isinstance(value, str) else to_json(value, separators=(",", ":"))


def stratified_split(labels: NDArray[np.int64], val: float, test: float, seed: int) -> NDArray[np.uint8]:
    """Split every class in the same proportions; `val` and `test` are fractions.

    A hash of (seed, index) determines a sample's split, so it is the same on every machine and with every library
    version. The seed is independent of the run's seed.
    """
    splits = np.zeros(len(labels), dtype=np.uint8)
    rank_key = CounterRandom.per_sample(seed, 0, np.arange(len(labels), dtype=np.int64)).bits(0)
    for members in by_label(labels, np.arange(len(labels))):
        members = members[np.argsort(rank_key[members], kind="stable")]
        n_val, n_test = round(val * len(members)), round(test * len(members))
        splits[members[:n_val]] = SPLITS.index("val")
        splits[members[n_val : n_val + n_test]] = SPLITS.index("test")
    return splits


def hold_out(
    labels: NDArray[np.int64],
    splits: NDArray[np.uint8],
    fraction: float,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.uint8]:
    """Move a `fraction` of each class's training samples to `val`: at least one, and never all.

    A hash of (seed, index) selects the samples, as in `stratified_split`. groups: int64 [N], the recording that a
    sample was cut from; samples of a recording stay together, and the fraction counts recordings. If a class has a
    single recording, its last samples are held out. Groups with several classes, such as people, are selected for all
    classes at once.
    """
    splits = splits.copy()
    train = splits == SPLITS.index("train")
    if groups is None:
        groups = np.arange(len(labels), dtype=np.int64)
    else:
        of_classes = np.unique(np.stack([groups[train], labels[train]]), axis=1)[0]
        if 1 < len(np.unique(of_classes)) < len(of_classes):
            labels = np.zeros_like(labels)
    for members in by_label(labels, np.flatnonzero(train)) if fraction > 0 else ():
        recordings = np.unique(groups[members])
        if len(recordings) == 1:
            held_out = members[len(members) - _share(fraction, len(members)) :]
        else:
            order = np.argsort(CounterRandom.per_sample(seed, 0, recordings).bits(0), kind="stable")
            held_out = members[np.isin(groups[members], recordings[order[: _share(fraction, len(recordings))]])]
        splits[held_out] = SPLITS.index("val")
    return splits


def untrained(class_names: Sequence[str], labels: NDArray[np.integer[Any]], splits: NDArray[np.uint8]) -> list[str]:
    """The classes that have no training sample. labels: [N], places in class_names; splits: [N], places in SPLITS."""
    trained = np.unique(labels[splits == SPLITS.index("train")])
    return [name for label, name in enumerate(class_names) if label not in trained]


def by_label(labels: NDArray[np.int64], samples: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The `samples` (indices) of each label, in their order. Sorts once; a pass over all samples for each of many
    classes takes minutes."""
    of_samples = labels[samples]
    order = np.argsort(of_samples, kind="stable")
    starts = np.flatnonzero(np.diff(of_samples[order])) + 1
    return np.split(samples[order], starts) if len(samples) else []


def _share(fraction: float, count: int) -> int:
    """How many of `count` samples to hold out: at least one but not all; 0 if there is only one."""
    return min(max(round(fraction * count), 1), count - 1)
