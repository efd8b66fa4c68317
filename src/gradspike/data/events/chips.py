"""Sensors with known AEDAT 2.0 addresses: the address bits, and the sensors' names in jAER."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Address = NDArray[np.uint32]


@dataclass(frozen=True)
class Layout:
    """Bit fields of an address. x and y: (first bit, number of bits) of column and row, counted from bottom right.

    polarity: number of the polarity bit. on: its value for ON events. other: bits that mark samples other than events
    (frames, IMU). pulse: bits that mark pulses at a synchronisation or external input. All other bits are unused and
    zero.
    """

    x: tuple[int, int]
    y: tuple[int, int]
    polarity: int
    on: int
    other: int = 0
    pulse: int = 0
    free: int = 0
    """Bits to ignore: they may have any value."""

    @property
    def unused(self) -> int:
        """Bits that are zero in every valid address."""
        places = sum(((1 << bits) - 1) << first for first, bits in (self.x, self.y))
        return ~(places | 1 << self.polarity | self.other | self.pulse | self.free) & 0xFFFFFFFF


@dataclass(frozen=True)
class Chip:
    """A sensor: its size in pixels and the layout of its addresses."""

    width: int
    height: int
    layout: Layout


DVS128 = Layout(x=(1, 7), y=(8, 7), polarity=0, on=0, pulse=1 << 15)
"""From jAER's DVS128 extractor. Bit 15 marks pulses at the synchronisation input."""
DAVIS = Layout(x=(12, 10), y=(22, 9), polarity=11, on=1, other=1 << 31, pulse=1 << 10, free=(1 << 10) - 1)
"""From iniVation's AEDAT 2.0 description and jAER's DavisChip. Bit 31 marks frames and IMU, bit 10 external input."""
DVS640 = Layout(x=(1, 10), y=(11, 10), polarity=0, on=1)
"""From jAER's DVS640; also used by v2e at 640x480."""

CHIPS = {
    "dvs128": Chip(128, 128, DVS128),
    "davis128": Chip(128, 128, DAVIS),
    "davis208": Chip(208, 192, DAVIS),
    "davis240": Chip(240, 180, DAVIS),
    "davis346": Chip(346, 260, DAVIS),
    "davis640": Chip(640, 480, DAVIS),
    "dvs640": Chip(640, 480, DVS640),
}
"""Sensors by their dataset.chip value."""

# Old and new class names in jAER's headers, without packages: Tmpdiff128, DAViS240, SBret10, Davis346BColor
_NAMES = (
    (re.compile(r"(dvs|tmpdiff)128(?!\d|and).*"), "dvs128"),
    (re.compile(r"sbret[12]\d.*"), "davis240"),
    (re.compile(r"(davis208|davis192|pixelparade|sensdavis192).*"), "davis208"),
    (re.compile(r"davi?s?(128|240|346|640)(?!\d).*"), "davis{}"),
    (re.compile(r"dvs640(?!\d).*"), "dvs640"),
)


def chip_named(name: str) -> str | None:
    """The chip for a jAER class name such as eu.seebetter.ini.chips.davis.DAVIS240C, or None if unknown."""
    last = name.rpartition(".")[2].strip().lower()
    for pattern, chip in _NAMES:
        if found := pattern.fullmatch(last):
            return chip.format(*found.groups()[:1])
    return None


@dataclass(frozen=True)
class Decoded:
    """Decoded addresses. Columns and rows count from the top left."""

    x: NDArray[np.int16]
    y: NDArray[np.int16]
    p: NDArray[np.bool_]
    good: NDArray[np.bool_]
    """Mask of the events. The rest are `others` (samples), `pulses`, or `strays` (addresses outside the chip)."""
    others: int
    pulses: int
    strays: int


def decode(address: Address, chip: Chip) -> Decoded:
    """Decode addresses."""
    layout = chip.layout
    other = (address & layout.other) != 0
    column, row = (address >> first & ((1 << bits) - 1) for first, bits in (layout.x, layout.y))
    stray = ~other & (((address & layout.unused) != 0) | (column >= chip.width) | (row >= chip.height))
    pulse = ~other & ~stray & ((address & layout.pulse) != 0)
    return Decoded(
        # At most 10 bits each, so int16 is enough.
        x=(chip.width - 1 - column.astype(np.int32)).astype(np.int16),
        y=(chip.height - 1 - row.astype(np.int32)).astype(np.int16),
        p=(address >> layout.polarity & 1) == layout.on,
        good=~(other | stray | pulse),
        others=int(np.count_nonzero(other)),
        pulses=int(np.count_nonzero(pulse)),
        strays=int(np.count_nonzero(stray)),
    )


def chips_that_fit(address: Address, most_strays: float) -> list[str]:
    """The chips that fit these addresses, smallest first within a layout."""
    fitting = []
    for name, chip in CHIPS.items():
        decoded = decode(address, chip)
        events = len(address) - decoded.others
        if events and decoded.strays + decoded.pulses <= most_strays * events:
            fitting.append(name)
    return fitting
