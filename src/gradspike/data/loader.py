"""The order of samples, their division into batches and among devices, and the loader that fetches them."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from mmap import mmap
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.sockets import check_socket_paths
from gradspike.data.source import Samples
from gradspike.data.worker_signals import leave_signals_to_the_training
from gradspike.errors import ConfigError
from gradspike.exhausted import NO_SHARED_MEMORY, LoaderError, is_full, loader_failure
from gradspike.shown import counted

Indices = NDArray[np.int64]
Batch = dict[str, Any]
Moment = tuple[int, int]

GROUP_BYTES = 2 * 2**20
GROUP_BATCHES = 8
"""Limits of a group of batches: 2 MiB of uint8 samples (700 images of CIFAR-10) and 8 batches."""
IN_MEMORY_BYTES = 2 * 2**30
"""Larger sets stay memory-mapped during training. Each process (device) has its own copy."""


def training_order(samples: Indices, seed: int, epoch: int) -> Indices:
    """The samples in the order of one epoch, sorted by a random key."""
    keys = CounterRandom.per_sample(seed, epoch, samples).bits(Draw.ORDER)
    return samples[np.argsort(keys, kind="stable")]


def training_batches(
    order: Indices, batch_size: int, rank: int = 0, world_size: int = 1, accumulate: int = 1
) -> list[Indices]:
    """This rank's micro-batches, `accumulate` of them per global batch.

    Together, the micro-batches of one optimiser step on all ranks are the batch that a single device would process
    without accumulation. A rank takes samples from both ends of a micro-batch towards the middle, so the two samples at
    mirrored positions, which mixing pairs, are on the same rank. An incomplete last batch is dropped unless it is the
    only one. Raises ConfigError if the global batch is not divisible.
    """
    shares = world_size * accumulate
    if batch_size % shares:
        steps = f" and trainer.accumulate={accumulate}" if accumulate > 1 else ""
        raise ConfigError(
            f"dataset.batch_size={batch_size} cannot be divided among {counted(world_size, 'device')}{steps}: choose "
            f"a multiple of {shares}."
        )
    if len(order) < batch_size and shares > 1:
        raise ConfigError(
            f"The training split has {counted(len(order), 'sample')}, fewer than dataset.batch_size={batch_size}. "
            "Choose a smaller batch, or use one device and trainer.accumulate=1, in a new run."
        )
    full = len(order) // batch_size
    if full == 0:
        return [order]
    own = batch_size // shares
    micro = order[: full * batch_size].reshape(full * accumulate, world_size * own)
    ends = np.arange(rank * own, (rank + 1) * own)
    places = np.sort(np.where(ends % 2 == 0, ends // 2, world_size * own - 1 - ends // 2))
    return list(micro[:, places])


def evaluation_batches(samples: Indices, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Indices]:
    """This rank's share of a split; each sample is on exactly one rank.

    All ranks get the same number of batches, otherwise a collective operation would wait forever. So each share is
    divided into equal batches instead of full ones and a remainder. If a share is smaller than others, some of its
    batches may be empty; batches of the first rank never are.
    """
    own = max(batch_size // world_size, 1)
    largest_share = -(-len(samples) // world_size)
    return np.array_split(samples[rank::world_size], -(-largest_share // own))


def _mapped_again(array: np.memmap[Any, Any]) -> tuple[Any, ...]:
    """How a memory-mapped array reaches a worker that is started afresh (macOS): as its file, not as a copy."""
    if not isinstance(array.base, mmap):  # a part of a mapped array
        return np.array, (np.asarray(array),)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape, order)


ForkingPickler.register(np.memmap, _mapped_again)


def forks_workers() -> bool:
    """Whether loader processes share the memory of this process."""
    return multiprocessing.get_start_method() == "fork"


def in_memory(samples: Samples) -> Samples:
    """Read memory-mapped samples into memory, up to IN_MEMORY_BYTES.

    Otherwise the first epoch, which reads samples in random order, would wait for the disk at every sample.
    """
    inputs = samples.inputs
    if isinstance(inputs, np.memmap) and inputs.nbytes <= IN_MEMORY_BYTES:
        return replace(samples, inputs=np.array(inputs))
    return samples


@dataclass(frozen=True)
class Request:
    """The samples of one or more batches of the given `sizes` and, for training, the (seed, epoch) of random crops."""

    indices: Indices
    sizes: tuple[int, ...]
    moment: Moment | None = None


class Group:
    """Batches that are fetched, transferred and transformed together.

    Augmentation takes a few hundred small operations, almost independent of the number of samples.
    """

    def __init__(self, inputs: Tensor, index: Tensor) -> None:
        self._inputs: Tensor | None = inputs
        self._index = index
        self._result: Tensor | None = None

    def transformed(self, transform: Callable[[Tensor, Tensor, Indices], Tensor], device: torch.device) -> Tensor:
        """The result of transform(inputs, index, index on the host) for all samples, computed once."""
        if self._result is None:
            assert self._inputs is not None
            inputs, index = (tensor.to(device, non_blocking=True) for tensor in (self._inputs, self._index))
            self._result = transform(inputs, index, self._index.numpy())
            self._inputs = None
        return self._result


class _Fetcher(Dataset[Batch]):
    """Fetches a request with one indexing operation."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitems__(self, request: Request) -> Batch:
        indices = request.indices
        tensors = {
            "input": torch.from_numpy(self.samples.fetch(indices, request.moment)),
            "label": torch.from_numpy(self.samples.labels[indices]),
            "index": torch.from_numpy(indices),
        }
        if get_worker_info() is not None:
            # In a worker, this would happen later in a thread that only prints errors and loses the batch.
            for tensor in tensors.values():
                tensor.share_memory_()  # type: ignore[no-untyped-call]
        return {**tensors, "sizes": request.sizes}

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__(Request(np.array([index]), (1,)))


def _unchanged(batch: Any) -> Any:
    return batch


class _Planned:
    """A batch sampler whose batches are assigned. A reference to the loader would keep workers alive."""

    def __init__(self) -> None:
        self.batches: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class EpochLoader:
    """Loads the batches that `plan()` lists at the start of each epoch; a full epoch has `batches` batches.

    The plan is made when the first batch is requested, because Lightning creates the first iterator before the epoch of
    a resumed run is known. moment: returns the (seed, epoch) of training, None for evaluation. grouped: fetch several
    small batches at once; "group" is then a batch's Group with its start and stop in it.
    """

    def __init__(
        self,
        samples: Samples,
        plan: Callable[[], list[Indices]],
        batches: int,
        workers: int,
        moment: Callable[[], Moment | None] = lambda: None,
        grouped: bool = False,
        pin: bool = False,
    ) -> None:
        self.samples = samples
        self.grouped = grouped
        self.plan = plan
        self.moment = moment
        self.batches = batches
        self._planned = _Planned()
        # A DataLoader draws a seed every epoch; with its own generator, it does not change the run's random numbers.
        self._loader: DataLoader[Batch] = DataLoader(
            _Fetcher(samples),
            batch_sampler=self._planned,  # type: ignore[arg-type]  # requests where lists of integers are expected
            num_workers=workers,
            worker_init_fn=leave_signals_to_the_training,
            collate_fn=_unchanged,
            persistent_workers=workers > 0,
            pin_memory=pin,
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        """The number of batches of a full epoch on this rank."""
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch."""
        moment, batches = self.moment(), self.plan()
        together = self._together(len(batches[0])) if batches else 1
        groups = [batches[start : start + together] for start in range(0, len(batches), together)]
        self._planned.batches = [
            Request(np.concatenate(group), tuple(len(batch) for batch in group), moment) for group in groups
        ]
        try:
            for fetched in self._started():
                yield from self._divided(fetched)
        except Exception as error:
            self._end_workers()
            if isinstance(error, (RuntimeError, OSError)) and (failure := loader_failure(error)):
                raise LoaderError(failure) from error
            raise

    def _end_workers(self) -> None:
        """End the processes of a failed epoch. The garbage collector would wait five seconds for each of them."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()  # type: ignore[no-untyped-call]

    def _started(self) -> Iterator[Batch]:
        """The loader's iterator, whose processes have started.

        Raises LoaderError if /dev/shm is full, or if TMPDIR is too long.
        """
        check_socket_paths(self._loader.num_workers)
        try:
            return iter(self._loader)
        except OSError as error:
            _drop_half_started(error)
            # Semaphores are files there, but the error does not name them.
            if is_full(error) and error.filename is None:
                raise LoaderError(NO_SHARED_MEMORY) from error
            raise

    def _together(self, batch_size: int) -> int:
        """The number of batches to fetch at once."""
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
        """Empty, because the trainer's progress determines the position in an epoch. Lightning requires this method."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing. Lightning requires this method."""

    @property
    def _iterator(self) -> Any:
        """The running worker processes. Lightning ends them through this attribute."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loader._iterator = iterator


def _drop_half_started(error: BaseException) -> None:
    """Keep torch's iterator, which `error` left without processes, from failing again when Python collects it."""
    trace = error.__traceback__
    while trace is not None:
        one = trace.tb_frame.f_locals.get("self")
        if isinstance(one, _MultiProcessingDataLoaderIter) and not getattr(one, "_workers", None):
            one._shutdown = True  # type: ignore[attr-defined]
        trace = trace.tb_next
