"""Which samples make up which batch, on which device, in which epoch; and the loader that fetches them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.pictures.encoded import EncodedPictures
from gradspike.data.source import Samples
from gradspike.errors import ConfigError

Indices = NDArray[np.int64]
Batch = dict[str, Any]
Moment = tuple[int, int]

GROUP_BYTES = 2 * 2**20
GROUP_BATCHES = 8
"""Limits of a group of batches: uint8 samples of 2 MiB (700 pictures of CIFAR-10), 8 batches."""
IN_MEMORY_BYTES = 2 * 2**30
"""Larger sets stay memory-mapped while training. Each process (device) holds its own copy."""


def training_order(samples: Indices, seed: int, epoch: int) -> Indices:
    """The samples in the order of one epoch: sorted by a random key of each."""
    keys = CounterRandom.per_sample(seed, epoch, samples).bits(Draw.ORDER)
    return samples[np.argsort(keys, kind="stable")]


def training_batches(
    order: Indices, batch_size: int, rank: int = 0, world_size: int = 1, accumulate: int = 1
) -> list[Indices]:
    """This rank's micro-batches, `accumulate` of them for each global batch.

    The micro-batches of one optimiser step, of all ranks together, are the batch that a single device would see without
    accumulation. The incomplete last batch is left out unless it is the only one. Raises ConfigError where a global
    batch cannot be divided.
    """
    shares = world_size * accumulate
    if batch_size % shares:
        steps = f" and trainer.accumulate={accumulate}" if accumulate > 1 else ""
        raise ConfigError(
            f"dataset.batch_size={batch_size} cannot be divided among {world_size} devices{steps}: choose a multiple "
            f"of {shares}."
        )
    if len(order) < batch_size and shares > 1:
        raise ConfigError(
            f"The training split has {len(order)} samples, fewer than dataset.batch_size={batch_size}: choose a "
            "smaller batch, or use one device and trainer.accumulate=1."
        )
    full = len(order) // batch_size
    if full == 0:
        return [order]
    own = batch_size // shares
    return list(order[: full * batch_size].reshape(full * accumulate, world_size, own)[:, rank])


def evaluation_batches(samples: Indices, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Indices]:
    """This rank's share of a split, every sample on one rank and once.

    All ranks get the same number of batches, because a collective operation in one of them would otherwise wait for
    ever; so a share is cut into equal batches rather than full ones and a rest.
    """
    if len(samples) < world_size:
        raise ConfigError(f"A split of {len(samples)} samples cannot be divided among {world_size} devices.")
    own = max(batch_size // world_size, 1)
    largest_share = -(-len(samples) // world_size)
    return np.array_split(samples[rank::world_size], -(-largest_share // own))


def in_memory(samples: Samples) -> Samples:
    """The same samples, read into memory in one go where they are memory-mapped and no larger than IN_MEMORY_BYTES.

    Read in random order from a file, the first epoch of a set would wait for the disk at every sample.
    """
    inputs = samples.inputs
    if isinstance(inputs, np.memmap) and inputs.nbytes <= IN_MEMORY_BYTES:
        return replace(samples, inputs=np.array(inputs))
    return samples


@dataclass(frozen=True)
class Request:
    """The samples of one batch or several (`sizes`) and, for training, the (seed, epoch) that decide how pictures are
    cropped in a worker.
    """

    indices: Indices
    sizes: tuple[int, ...]
    moment: Moment | None = None


class Group:
    """Batches that were fetched together: they go to the device and are transformed together.

    Augmenting a batch takes a few hundred small operations, whose number hardly depends on how many samples there are.
    """

    def __init__(self, inputs: Tensor, index: Tensor) -> None:
        self._inputs: Tensor | None = inputs
        self._index = index
        self._result: Tensor | None = None

    def transformed(self, transform: Callable[[Tensor, Tensor, Indices], Tensor], device: torch.device) -> Tensor:
        """What transform(inputs, index, index on the host) makes of all samples, worked out once."""
        if self._result is None:
            assert self._inputs is not None
            inputs, index = (tensor.to(device, non_blocking=True) for tensor in (self._inputs, self._index))
            self._result = transform(inputs, index, self._index.numpy())
            self._inputs = None
        return self._result


class _Fetcher(Dataset[Batch]):
    """Fetches a request by one indexing operation."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitems__(self, request: Request) -> Batch:
        inputs, indices = self.samples.inputs, request.indices
        fetched = inputs.fetch(indices, request.moment) if isinstance(inputs, EncodedPictures) else inputs[indices]
        return {
            "input": torch.from_numpy(np.asarray(fetched)),
            "label": torch.from_numpy(self.samples.labels[indices]),
            "index": torch.from_numpy(indices),
            "sizes": request.sizes,
        }

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__(Request(np.array([index]), (1,)))


def _unchanged(batch: Any) -> Any:
    return batch


class _Planned:
    """A batch sampler whose batches are set from outside. It knows no loader: a circle would keep workers alive."""

    def __init__(self) -> None:
        self.batches: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class EpochLoader:
    """A loader of batches that `plan()` lists anew at the start of each epoch; `batches` is their number in a full one.

    The plan is made when the first batch is asked for and not when an iterator is made, because Lightning makes the
    first iterator before a resumed run knows its epoch. `moment` is the (seed, epoch) of training; None for evaluation.
    With `grouped`, small batches are fetched some at a time and say so: "group" is the Group they belong to, and their
    first and last place in it.
    """

    def __init__(
        self,
        samples: Samples,
        plan: Callable[[], list[Indices]],
        batches: int,
        workers: int,
        moment: Callable[[], Moment | None] = lambda: None,
        grouped: bool = False,
    ) -> None:
        self.samples = samples
        self.grouped = grouped
        self.plan = plan
        self.moment = moment
        self.batches = batches
        self._planned = _Planned()
        # A DataLoader draws a seed at every epoch; with its own generator it leaves the run's random numbers alone.
        self._loader: DataLoader[Batch] = DataLoader(
            _Fetcher(samples),
            batch_sampler=self._planned,  # type: ignore[arg-type]  # requests where lists of integers are expected
            num_workers=workers,
            collate_fn=_unchanged,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        """The number of batches in a full epoch on this rank."""
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch."""
        moment, batches = self.moment(), self.plan()
        together = self._together(len(batches[0])) if batches else 1
        groups = [batches[start : start + together] for start in range(0, len(batches), together)]
        self._planned.batches = [
            Request(np.concatenate(group), tuple(len(batch) for batch in group), moment) for group in groups
        ]
        for fetched in self._loader:
            yield from self._divided(fetched)

    def _together(self, batch_size: int) -> int:
        """How many batches to fetch at once."""
        if not self.grouped:
            return 1
        inputs = self.samples.inputs
        batch_bytes: int = batch_size * math.prod(inputs.shape[1:]) * inputs.dtype.itemsize
        return min(max(GROUP_BYTES // batch_bytes, 1), GROUP_BATCHES)

    def _divided(self, fetched: Batch) -> Iterator[Batch]:
        sizes = fetched.pop("sizes")
        group = Group(fetched["input"], fetched["index"]) if len(sizes) > 1 else None
        stop = 0
        for size in sizes:
            start, stop = stop, stop + size
            batch: Batch = {name: values[start:stop] for name, values in fetched.items()}
            yield batch if group is None else {**batch, "group": (group, start, stop)}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the place in an epoch follows from the trainer's progress. Lightning asks for the method."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""

    @property
    def _iterator(self) -> Any:
        """The running worker processes: Lightning ends them by this attribute, after a fit as after a failure.

        Left to the garbage collector, each worker takes five seconds to end.
        """
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loader._iterator = iterator
