"""Loss surfaces made for a test, and a look at their pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gradspike.tools.landscape.numbers import Numbers, Point, grid_axis

LABELS = {"method": "m", "dataset": "d", "model": "x", "seed": 0, "checkpoint": "last", "epoch": 1, "samples": 3}


def assert_picture(path: Path) -> None:
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))[::3, ::3]
    assert min(pixels.shape[:2]) > 150
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 30


def numbers_of(loss: Callable[[float, float], float | None], points: int = 21) -> Numbers:
    axis = grid_axis(points, 1.0)
    grid = [Point(loss(alpha, beta), 0.5) for alpha in axis for beta in axis]
    return Numbers("run", LABELS, {"split": "val", "seed": 0, "norm_statistics": "stored"}, 0.0, axis, grid)
