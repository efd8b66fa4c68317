"""Counter-based random numbers, independent of order, process and device.

A number is a hash of (seed, epoch, sample index, draw): the finaliser of SplitMix64 (Steele, Lea & Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014), applied along the chain. All arithmetic is on int64 modulo
2**64, with operators that NumPy arrays and torch tensors share, so one definition gives the same bits when preparing
data and when augmenting on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ArrayT = TypeVar("ArrayT", "NDArray[np.int64]", "Tensor")


def _signed(value: int) -> int:
    """The int64 that has the same 64 bits as `value`."""
    return (value + 2**63) % 2**64 - 2**63


GAMMA = _signed(0x9E3779B97F4A7C15)
_MULTIPLIERS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _logical_shift(bits: Any, places: int) -> Any:
    return (bits >> places) & (2 ** (64 - places) - 1)


def mix64(bits: ArrayT) -> ArrayT:
    """SplitMix64's finaliser, a bijection of 64-bit words, elementwise on an int64 array."""
    mixed: Any = bits
    mixed = (mixed ^ _logical_shift(mixed, 30)) * _MULTIPLIERS[0]
    mixed = (mixed ^ _logical_shift(mixed, 27)) * _MULTIPLIERS[1]
    return mixed ^ _logical_shift(mixed, 31)  # type: ignore[no-any-return]


def mix_integers(*values: int) -> int:
    """Hash Python integers into one int64: the part of the hash chain that all samples share."""
    state = 0
    for value in values:
        state = (state + value + GAMMA) % 2**64
        state = ((state ^ state >> 30) * _MULTIPLIERS[0]) % 2**64
        state = ((state ^ state >> 27) * _MULTIPLIERS[1]) % 2**64
        state ^= state >> 31
    return _signed(state)


class CounterRandom(Generic[ArrayT]):
    """Independent random numbers for every element of `key` (int64), one per draw."""

    def __init__(self, key: ArrayT) -> None:
        self.key: ArrayT = key

    @classmethod
    def per_sample(cls, seed: int, epoch: int, index: ArrayT) -> CounterRandom[ArrayT]:
        """Numbers for the samples `index` (int64 [B]) in one epoch of a run."""
        key: Any = index + mix_integers(seed, epoch)
        return cls(mix64(key))

    @classmethod
    def per_event(cls, key: ArrayT, event: ArrayT) -> CounterRandom[ArrayT]:
        """Numbers for the `event`-th event of recordings with random `key`s (both int64 [E])."""
        combined: Any = key + event
        return cls(mix64(combined))

    def bits(self, draw: int) -> ArrayT:
        """64 random bits as int64."""
        key: Any = self.key
        return mix64(key + _signed((draw + 1) * GAMMA))  # type: ignore[no-any-return]

    def uniform(self, draw: int) -> Any:
        """Floats in [0, 1), multiples of 2**-24 and so exact in float32 (torch returns float32, NumPy float64)."""
        return _logical_shift(self.bits(draw), 40) * 2.0**-24

    def integers(self, draw: int, low: int, high: int) -> ArrayT:
        """Integers from `low` to `high` inclusive (at most 2**31 values)."""
        return low + (_logical_shift(self.bits(draw), 32) * (high - low + 1) >> 32)  # type: ignore[no-any-return]
