"""Spikes that wait for the backward pass as bits (`trainer.pack_spikes`).

A convolution keeps its input for its weight's gradient. Spiking layers `mark` what they emit as whole numbers; sums and
pooling mark their results. Inside `packing()`, autograd then keeps such a tensor with 1, 2, 4 or 8 bits a value, once
for all operations that save it or a view of it, and unpacks it where it is read: dtype, shape, strides and values are
those of the original. Everything else is kept as it is. A tensor is recognised by its memory, never by its values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

LARGEST = 127
"""The largest count that is packed. Conversions to int8 are vectorised on a CPU, those to uint8 are not."""
WORD = 8
"""Bytes that are shifted at once."""
FIRST_BITS = 0x0101010101010101


@dataclass(frozen=True)
class _Packed:
    """The values of a whole storage, in the order of memory: `scale` times counts of `bits` bits each."""

    words: Tensor
    bits: int
    count: int
    scale: float
    dtype: torch.dtype

    @staticmethod
    def of(values: Tensor, largest: int, scale: float) -> _Packed:
        """values: [n], each `scale` times a whole number from 0 to `largest`."""
        bits = next(size for size in (1, 2, 4, 8) if largest < 1 << size)
        planes = 8 // bits
        size = -(-values.numel() // (planes * WORD)) * WORD
        counts = torch.zeros(planes * size, dtype=torch.int8, device=values.device)
        counts[: values.numel()].copy_(values if scale == 1 else values * (1 / scale))
        parts = counts.view(torch.int64).view(planes, -1)
        words = parts[0].clone() if planes > 1 else parts[0]
        for plane in range(1, planes):
            words |= parts[plane] << plane * bits
        return _Packed(words, bits, values.numel(), scale, values.dtype)

    def values(self) -> Tensor:
        """[n], the original values."""
        planes = 8 // self.bits
        mask = FIRST_BITS * ((1 << self.bits) - 1)
        parts = self.words.new_empty(planes, self.words.numel())
        for plane in range(planes):
            torch.bitwise_right_shift(self.words, plane * self.bits, out=parts[plane])
            if planes > 1:
                parts[plane] &= mask
        values = parts.view(-1).view(torch.int8)[: self.count].to(self.dtype)
        return values if self.scale == 1 else values.mul_(self.scale)


@dataclass(frozen=True)
class _View:
    """A saved tensor whose storage is packed."""

    packed: _Packed
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass
class _Marked:
    """A storage of whole numbers. `alive` keeps its address from being used again; the memory itself is released."""

    alive: StorageWeakRef
    version: int
    largest: int
    scale: float
    packed: _Packed | None = None


class _Pass:
    """What one forward pass has marked, by storage."""

    def __init__(self) -> None:
        self._marked: dict[int, _Marked] = {}

    def mark(self, tensor: Tensor, largest: int, scale: float) -> None:
        storage = tensor.untyped_storage()
        if largest <= LARGEST and storage.nbytes() == tensor.numel() * tensor.itemsize:
            alive = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            self._marked[storage._cdata] = _Marked(alive, tensor._version, largest, scale)

    def find(self, tensor: Tensor) -> _Marked | None:
        """What is known of the tensor's memory; None if it was written to after it was marked."""
        found = self._marked.get(tensor.untyped_storage()._cdata)
        return found if found is not None and found.version == tensor._version else None

    def pack(self, tensor: Tensor) -> _View | tuple[Tensor, int]:
        found = self.find(tensor)
        if found is None:
            # With its history, an operation's own result would keep itself alive where no backward pass ends it.
            return tensor.detach(), tensor._version
        if found.packed is None:
            whole = tensor.detach().as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)
            found.packed = _Packed.of(whole, found.largest, found.scale)
        return _View(found.packed, tensor.shape, tensor.stride(), int(tensor.storage_offset()))


_pass: ContextVar[_Pass | None] = ContextVar("gradspike_packing", default=None)


@contextmanager
def packing(enabled: bool = True) -> Iterator[None]:
    """Keep marked tensors of the forward pass inside the block packed until its backward pass reads them."""
    if not enabled:
        yield
        return
    own = _Pass()
    token = _pass.set(own)
    try:
        with torch.autograd.graph.saved_tensors_hooks(own.pack, _unpack):
            yield
    finally:
        _pass.reset(token)


def mark(tensor: Tensor, largest: int = 1, scale: float = 1.0) -> Tensor:
    """Returns the tensor, which holds `scale` (a power of two) times whole numbers from 0 to `largest`.

    A view of a part of another tensor is not marked. Without `packing`, this does nothing.
    """
    own = _pass.get()
    if own is not None:
        own.mark(tensor, largest, scale)
    return tensor


def largest_of(tensor: Tensor) -> int | None:
    """The largest whole number that the tensor can hold; None if it is not marked as whole numbers, or not packed."""
    own = _pass.get()
    found = None if own is None else own.find(tensor)
    return found.largest if found is not None and found.scale == 1 else None


def _unpack(saved: _View | tuple[Tensor, int]) -> Tensor:
    if isinstance(saved, _View):
        return saved.packed.values().as_strided(saved.shape, saved.stride, saved.offset)
    tensor, version = saved
    if tensor._version != version:  # torch checks this only for tensors without hooks
        raise RuntimeError(
            f"a tensor of shape {list(tensor.shape)} that the backward pass needs has been modified by an in-place "
            f"operation: it is at version {tensor._version}, expected version {version}."
        )
    return tensor
