"""Divide the values of a layer into tiles, and the tiles among a kernel's programs; see `kernels`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gradspike.engine.records import Spec

WIDEST = 128
"""Maximum channels in a tile of rows: a whole cache line in any dtype."""

SMALLEST = 128
"""Values in a tile with one value for each thread of a program."""

KEPT = 6
"""Maximum tensors of a full tile's size that a program keeps, 8 registers each in float32. With more, tiles shrink."""

WIDE_FROM = 2**31 - 2**24
"""Number of elements above which offsets need 64 bits, with a margin for the last tile."""


@dataclass(frozen=True)
class Tiling:
    """Sizes of tiles and grid.

    Attributes:
        values: values per channel to divide.
        channels: number of channels.
        plane: values of a plane (1 for rows).
        parts: programs along the values.
        per: tiles of each program.
        block_m, block_c: size of a tile, values by channels.
        blocks: programs along the channels.
        arrangement: see `formulas`.
    """

    values: int
    channels: int
    plane: int
    parts: int
    per: int
    block_m: int
    block_c: int
    blocks: int
    arrangement: str

    @classmethod
    def of(
        cls, shape: tuple[int, ...], spec: Spec, *, tile: int, kept: int = 0, most_programs: int | None = None
    ) -> Tiling:
        """Divide values of a shape [T, P, Q, C] or [T, P, C, S], all of its steps together.

        Args:
            shape: shape of the values; T = 1 divides a single step.
            spec: has the arrangement.
            tile: values in a full tile, a power of 2.
            kept: tensors of a tile's size that a program keeps while it runs.
            most_programs: if partial sums are stored, the approximate maximum of programs per sum.
        """
        if spec.arrangement == "rows":
            steps, parts, rows, channels = shape
            size, plane = steps * parts * rows, 1
        else:
            steps, parts, channels, plane = shape
            size = steps * parts * plane
        tile = max(tile // power_of_2(math.ceil(kept / KEPT)), min(tile, SMALLEST))
        block_c = 1 if spec.arrangement == "planes" else min(WIDEST, tile, power_of_2(channels))
        block_m = min(tile // block_c, power_of_2(size))
        tiles, blocks = math.ceil(size / block_m), math.ceil(channels / block_c)
        parts = tiles if most_programs is None else min(tiles, max(1, most_programs // blocks))
        return cls(size, channels, plane, parts, math.ceil(tiles / parts), block_m, block_c, blocks, spec.arrangement)

    @property
    def elements(self) -> int:
        """Number of divided elements."""
        return self.values * self.channels

    @property
    def programs(self) -> int:
        """Size of the grid."""
        return self.parts * self.blocks

    @property
    def sizes(self) -> tuple[int, ...]:
        """The kernels' arguments M, C, S, parts, per."""
        return self.values, self.channels, self.plane, self.parts, self.per

    @property
    def constants(self) -> dict[str, Any]:
        """The kernels' compile-time constants."""
        return {
            "PLANES": self.arrangement == "planes",
            "BLOCK_M": self.block_m,
            "BLOCK_C": self.block_c,
            "WIDE": self.elements > WIDE_FROM,
        }


def power_of_2(number: int) -> int:
    """The smallest power of 2 that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()
