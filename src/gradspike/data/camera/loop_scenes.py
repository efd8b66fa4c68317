"""What the camera of CIFAR10-DVS saw: a picture of CIFAR-10 that moves on a monitor, in integers.

Li, Liu, Ji, Li & Shi (Front. Neurosci. 2017) showed each picture enlarged to 512x512 by bicubic interpolation, moving
smoothly along a closed loop, six times. The loop is a square that stands on its corner, each side 10 pixels to the side
and 10 up or down, at 200 pixels a second along each axis: 50 ms a side, 200 ms a loop, 1.2 s in all. (Size, number of
loops and interpolation are in the paper's abstract and the data set's description; step and speed are taken from public
code that repeats the recordings with the paper's numbers. The refresh of the monitor is not simulated. The picture is
taken to fill the sensor, 4 by 4 pixels of the monitor for one of the sensor, and to go on beyond its edges as it is
there: against a black ground, its outline alone would make 40 % of the events.)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SENSOR = 128
MONITOR = 512
LOOPS = 6
CORNERS = ((-10, 0), (0, -10), (10, 0), (0, 10), (-10, 0))
"""(x, y) of the picture on the monitor, in its pixels from the middle."""
STEP_US = 5000
"""Time for one pixel of the monitor along each axis."""

_RATIO = MONITOR // SENSOR
_MARGIN = 12
_WHITE = 65535


def path() -> NDArray[np.int64]:
    """The picture's place at each sample, int64 [241, 2 (x, y)], in pixels of the monitor."""
    legs = [np.linspace(start, end, 10, endpoint=False) for start, end in pairwise(np.array(CORNERS))]
    loop = np.rint(np.concatenate(legs)).astype(np.int64)
    return np.concatenate([np.tile(loop, (LOOPS, 1)), loop[:1]])


def sample_times() -> NDArray[np.int64]:
    """Microseconds of each sample, from 0 to 1,200,000."""
    return np.arange(len(path()), dtype=np.int64) * STEP_US


def scenes(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint16]]:
    """The light on the sensor at each place of the path, uint16 [R, 128, 128], of pictures uint8 [R, 3, 32, 32]."""
    covered = _covered(_on_monitor(pictures))
    seen: dict[tuple[int, int], NDArray[np.uint16]] = {}
    for x, y in path().tolist():
        if (x, y) not in seen:
            top, left = _MARGIN - y, _MARGIN - x
            place = covered[:, top : top + MONITOR : _RATIO, left : left + MONITOR : _RATIO]
            seen[x, y] = np.ascontiguousarray(place)
        yield seen[x, y]


def _on_monitor(pictures: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Linear light on the monitor, [R, 512, 512]: brightness (ITU-R BT.601), enlarged, then the monitor's gamma of 2.2.

    Every product is a whole number below 2**53: exact in float64 whatever the order of the sums.
    """
    red, green, blue = pictures.transpose(1, 0, 2, 3).astype(np.float64)
    enlarge = _bicubic(pictures.shape[-1])
    large = enlarge @ (299 * red + 587 * green + 114 * blue) @ enlarge.T
    # 255,000 * 2**32 is white. The division by a power of two is exact, the other is not, so it is done in integers.
    level = (large * 2.0**-16).astype(np.int64) * _WHITE // (255_000 << 16)
    light: NDArray[np.uint16] = _light()[np.clip(level, 0, _WHITE)]
    return light


def _covered(light: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Mean light over the 4 by 4 pixels from each place on, with a margin around: [R, 512 + 2 margins - 3, ...]."""
    total = np.pad(light.astype(np.uint32), ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)), mode="edge")
    total = total[:, :-3] + total[:, 1:-2] + total[:, 2:-1] + total[:, 3:]
    total = total[:, :, :-3] + total[:, :, 1:-2] + total[:, :, 2:-1] + total[:, :, 3:]
    return (total // _RATIO**2).astype(np.uint16)


@cache
def _bicubic(pixels: int) -> NDArray[np.float64]:
    """Weights, in units of 2**-16, of the picture's pixels in the monitor's: [512, pixels]; edges are continued.

    Keys' cubic with a = -1/2 (IEEE TASSP 1981). The 16 distances that occur are odd multiples of 1/32, at which its
    values are multiples of 2**-16.
    """
    assert 16 * pixels == MONITOR
    weights = np.zeros((MONITOR, pixels))
    for row in range(MONITOR):
        place = 2 * row + 1 - 16  # of the row's middle, in 1/32 pixel from the middle of pixel 0
        for pixel in range(place // 32 - 1, place // 32 + 3):
            m = abs(place - 32 * pixel)
            weight = 3 * m**3 - 160 * m**2 + 65536 if m < 32 else -(m**3) + 160 * m**2 - 8192 * m + 131072
            weights[row, min(max(pixel, 0), pixels - 1)] += weight
    return weights


@cache
def _light() -> NDArray[np.uint16]:
    """Light of each of 65,536 levels."""
    return np.rint(_WHITE * (np.arange(_WHITE + 1) / _WHITE) ** 2.2).astype(np.uint16)
