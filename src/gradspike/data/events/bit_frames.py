"""Binary event frames stored as bits, an eighth of their size: a million recordings fit on a disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BitFrames:
    """Frames that can be indexed like a uint8 array [N, time_steps, *inner] of 0 and 1.

    stored: uint8 [N, bytes], each row np.packbits of [steps, *inner], usually memory-mapped. time_steps: a divisor of
    `steps`; fewer steps join neighbours: 1 where any of them has an event.
    """

    stored: NDArray[np.uint8]
    steps: int
    inner: tuple[int, ...]
    time_steps: int

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the equivalent array."""
        return len(self), self.time_steps, *self.inner

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Type of the equivalent array."""
        return np.dtype(np.uint8)

    def __getitem__(self, indices: Any) -> NDArray[np.uint8]:
        """Unpack the frames of one sample or of several. indices: as for the first axis of an array."""
        rows = np.asarray(self.stored[indices])
        joined = self.steps // self.time_steps
        shape = (*rows.shape[:-1], self.time_steps, joined, *self.inner)
        count = self.steps * int(np.prod(self.inner))
        frames = np.unpackbits(rows, axis=-1, count=count).reshape(shape)
        steps = rows.ndim - 1
        return frames.squeeze(steps + 1) if joined == 1 else frames.max(axis=steps + 1)
