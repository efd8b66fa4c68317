"""Random masks that any engine draws alike: a hash of seed, step and element, computed where it is used.

The forward and the backward pass draw the same mask without keeping it. The hash is a 32-bit integer finaliser of two
rounds (multipliers 0x21f0aaad and 0x735a2d97, from the search "prospecting for hash functions" by C. Wellons). All
products fit in an int64.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_STEP = 0x3C6EF372


def spike_mask(seed: Tensor, share: Tensor, t: int, index: Tensor) -> Tensor:
    """Where an element of step t emits a spike, not its analog value: each with probability 1 - share.

    seed: int64 scalar below 2^32. index: int64, an element's number within the step, below 2^31.
    """
    bits = _mixed(index ^ _mixed(seed_at(seed, t)))
    # 24 bits are exact in float32.
    return (bits >> 8).to(share.dtype) * 2.0**-24 >= share


def seed_at(seed: Tensor, t: int) -> Tensor:
    """The seed with which step t counts as step 0."""
    return (seed + t * _STEP) & _WORD


def new_seed(device: torch.device) -> Tensor:
    """A seed from torch's generator of the CPU, whose state checkpoints keep."""
    # Filled in there: a copy to a GPU would wait for the work before it.
    return torch.full((), int(torch.randint(2**31, ())), device=device)


def _mixed(bits: Tensor) -> Tensor:
    bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & _WORD
    bits = ((bits ^ (bits >> 15)) * 0x735A2D97) & _WORD
    return bits ^ (bits >> 15)
