"""Which samples make up which batch, on which device, in which epoch; and the loader that fetches them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gradspike.data.augment import Draw
from gradspike.data.random import CounterRandom
from gradspike.data.source import Samples
from gradspike.errors import ConfigError

Indices = NDArray[np.int64]
Batch = dict[str, Tensor]


def training_order(samples: Indices, seed: int, epoch: int) -> Indices:
    """The samples in the order of one epoch: sorted by a random key of each."""
    keys = CounterRandom.per_sample(seed, epoch, samples).bits(Draw.ORDER)
    return samples[np.argsort(keys, kind="stable")]


def training_batches(order: Indices, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Indices]:
    """This rank's part of every global batch; the incomplete last batch is left out unless it is the only one.

    The parts of all ranks together are the batches a single device would see. Raises ConfigError where a global batch
    cannot be divided.
    """
    if batch_size % world_size:
        raise ConfigError(
            f"dataset.batch_size={batch_size} cannot be divided among {world_size} devices: choose a multiple of it."
        )
    if len(order) < batch_size and world_size > 1:
        raise ConfigError(
            f"The training split has {len(order)} samples, fewer than dataset.batch_size={batch_size}: use one device."
        )
    own = batch_size // world_size
    full = len(order) // batch_size
    if full == 0:
        return [order]
    return list(order[: full * batch_size].reshape(full, world_size, own)[:, rank])


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


class _Fetcher(Dataset[Batch]):
    """Fetches a batch by one indexing operation."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitems__(self, indices: Indices) -> Batch:
        return {
            "input": torch.from_numpy(np.asarray(self.samples.inputs[indices])),
            "label": torch.from_numpy(self.samples.labels[indices]),
            "index": torch.from_numpy(indices),
        }

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__(np.array([index]))


def _unchanged(batch: Any) -> Any:
    return batch


class _Planned:
    """A batch sampler whose batches are set from outside. It knows no loader: a circle would keep workers alive."""

    def __init__(self) -> None:
        self.batches: list[Indices] = []

    def __iter__(self) -> Iterator[Indices]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class EpochLoader:
    """A loader of batches that `plan()` lists anew at the start of each epoch; `batches` is their number in a full one.

    The plan is made when the first batch is asked for and not when an iterator is made, because Lightning makes the
    first iterator before a resumed run knows its epoch.
    """

    def __init__(self, samples: Samples, plan: Callable[[], list[Indices]], batches: int, workers: int) -> None:
        self.plan = plan
        self.batches = batches
        self._planned = _Planned()
        # A DataLoader draws a seed at every epoch; with its own generator it leaves the run's random numbers alone.
        self._loader: DataLoader[Batch] = DataLoader(
            _Fetcher(samples),
            batch_sampler=self._planned,  # type: ignore[arg-type]  # arrays where lists of integers are expected
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
        self._planned.batches = self.plan()
        yield from self._loader

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
