"""The scene recorded for CIFAR10-DVS: a CIFAR-10 image moving on a monitor, computed in integers.

Li, Liu, Ji, Li & Shi (Front. Neurosci. 2017) enlarged each image to 512x512 by bicubic interpolation and moved it
smoothly along a closed loop six times. The loop is a diamond: each side spans 10 pixels along both axes at 200 pixels
per second and axis, which takes 50 ms per side, 200 ms per loop and 1.2 s in total. Size, interpolation and number of
loops are from the paper's abstract and the data set's description. Step and speed are from public code that reproduces
the recordings with the paper's numbers.

Assumptions: the monitor's refresh is not simulated. The image fills the sensor, with 4x4 monitor pixels per sensor
pixel. Its edge pixels are replicated outwards: on a black background, the outline alone would cause 40 % of the events.
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
"""(x, y) offset of the image from the centre, in monitor pixels."""
STEP_US = 5000
"""Time per monitor pixel along each axis."""

_RATIO = MONITOR // SENSOR
_MARGIN = 12
_WHITE = 65535


def path() -> NDArray[np.int64]:
    """Position of the image at each sample time, int64 [241, 2 (x, y)], in monitor pixels."""
    legs = [np.linspace(start, end, 10, endpoint=False) for start, end in pairwise(np.array(CORNERS))]
    loop = np.rint(np.concatenate(legs)).astype(np.int64)
    return np.concatenate([np.tile(loop, (LOOPS, 1)), loop[:1]])


def sample_times() -> NDArray[np.int64]:
    """Sample times in microseconds, from 0 to 1,200,000."""
    return np.arange(len(path()), dtype=np.int64) * STEP_US


def scenes(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint16]]:
    """Yield sensor intensities uint16 [R, 128, 128] at each point of the path, for images uint8 [R, 3, 32, 32]."""
    covered = _covered(_on_monitor(pictures))
    seen: dict[tuple[int, int], NDArray[np.uint16]] = {}
    for x, y in path().tolist():
        if (x, y) not in seen:
            top, left = _MARGIN - y, _MARGIN - x
            place = covered[:, top : top + MONITOR : _RATIO, left : left + MONITOR : _RATIO]
            seen[x, y] = np.ascontiguousarray(place)
        yield seen[x, y]


def _on_monitor(pictures: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Linear intensity on the monitor, [R, 512, 512]: luma (ITU-R BT.601), upscaled, with a gamma of 2.2.

    All products are integers below 2**53, so float64 arithmetic is exact in any order.
    """
    red, green, blue = pictures.transpose(1, 0, 2, 3).astype(np.float64)
    enlarge = _bicubic(pictures.shape[-1])
    large = enlarge @ (299 * red + 587 * green + 114 * blue) @ enlarge.T
    # White is 255,000 * 2**32. In floating point only division by a power of two is exact, so divide by 255,000 in
    # integers.
    level = (large * 2.0**-16).astype(np.int64) * _WHITE // (255_000 << 16)
    light: NDArray[np.uint16] = _light()[np.clip(level, 0, _WHITE)]
    return light


def _covered(light: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Mean intensity of the 4x4 block that starts at each position, with margins: [R, 512 + 2 margins - 3, ...]."""
    total = np.pad(light.astype(np.uint32), ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)), mode="edge")
    total = total[:, :-3] + total[:, 1:-2] + total[:, 2:-1] + total[:, 3:]
    total = total[:, :, :-3] + total[:, :, 1:-2] + total[:, :, 2:-1] + total[:, :, 3:]
    return (total // _RATIO**2).astype(np.uint16)


@cache
def _bicubic(pixels: int) -> NDArray[np.float64]:
    """Weights (in 2**-16) of image pixels for each monitor pixel, with replicated edges: [512, pixels].

    Keys' cubic kernel with a = -1/2 (IEEE TASSP 1981). The 16 distances are odd multiples of 1/32, where the kernel's
    values are multiples of 2**-16.
    """
    assert 16 * pixels == MONITOR
    weights = np.zeros((MONITOR, pixels))
    for row in range(MONITOR):
        place = 2 * row + 1 - 16  # centre of the row, in 1/32 pixel from the centre of pixel 0
        for pixel in range(place // 32 - 1, place // 32 + 3):
            m = abs(place - 32 * pixel)
            weight = 3 * m**3 - 160 * m**2 + 65536 if m < 32 else -(m**3) + 160 * m**2 - 8192 * m + 131072
            weights[row, min(max(pixel, 0), pixels - 1)] += weight
    return weights


@cache
def _light() -> NDArray[np.uint16]:
    """Lookup table: linear intensity of each of the 65,536 levels."""
    return np.rint(_WHITE * (np.arange(_WHITE + 1) / _WHITE) ** 2.2).astype(np.uint16)
