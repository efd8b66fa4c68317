"""The grid and its points, two measures of flatness, and the result files."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from gradspike.json_text import to_json
from gradspike.runs.files import write_atomically

DEFINITIONS = {
    "share_below_twice_centre": "share of the grid points whose loss is below twice the loss at the centre",
    "median_increase_at_half": "median, over the circle of radius extent / 2 around the centre, of the loss "
    "(interpolated bilinearly between grid points) minus the loss at the centre",
}
ANGLES = 360  # points on the circle


class Point(NamedTuple):
    """Mean loss over the samples (None if it is not finite), and accuracy as a fraction."""

    loss: float | None
    accuracy: float


def grid_axis(points: int, extent: float) -> list[float]:
    """`points` (odd) evenly spaced coordinates from -extent to extent; the middle one is exactly 0."""
    half = points // 2
    return [extent * ((index - half) / half) for index in range(points)]


@dataclass(frozen=True)
class Numbers:
    """A finished surface.

    Attributes:
        run: name of the run's folder.
        labels: description of the training and evaluation, for readers.
        settings: everything the points depend on.
        cosine: cosine of the angle between the two directions.
        axis: coordinates [n], the same along both directions.
        grid: n * n points, row by row: alpha (the first direction) changes from row to row, beta within one.
    """

    run: str
    labels: dict[str, Any]
    settings: dict[str, Any]
    cosine: float
    axis: list[float]
    grid: list[Point]

    @property
    def centre(self) -> Point:
        """The trained weights."""
        return self.grid[len(self.grid) // 2]

    @property
    def not_finite(self) -> int:
        """The number of points without a finite loss."""
        return sum(point.loss is None for point in self.grid)

    def flatness(self) -> dict[str, float | None]:
        """The measures of DEFINITIONS; None if not finite. A loss that is not finite counts as infinite."""
        centre = self.centre.loss
        if centre is None:
            return dict.fromkeys(DEFINITIONS)
        losses = [math.inf if point.loss is None else point.loss for point in self.grid]
        radius = self.axis[-1] / 2
        turns = [2 * math.pi * place / ANGLES for place in range(ANGLES)]
        circle = [self._between(losses, radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]
        increase = median(circle) - centre
        return {
            "share_below_twice_centre": sum(loss < 2 * centre for loss in losses) / len(losses),
            "median_increase_at_half": increase if math.isfinite(increase) else None,
        }

    def _between(self, values: list[float], alpha: float, beta: float) -> float:
        """Bilinear interpolation of `values`, one per grid point; infinite next to an infinite value."""
        width = len(self.axis)
        corners = []
        for coordinate in (alpha, beta):
            place = (coordinate / self.axis[-1] + 1) * (width - 1) / 2
            low = min(int(place), width - 2)
            corners.append(((low, 1 - (place - low)), (low + 1, place - low)))
        rows, columns = corners
        # Weights of 0 are left out, because 0 times infinity is NaN.
        return sum(a * b * values[row * width + column] for row, a in rows for column, b in columns if a * b > 0)


def write_numbers(folder: Path, numbers: Numbers) -> list[Path]:
    """Write landscape.json and landscape.csv. Returns their paths. Neither depends on the clock."""
    as_json, as_csv = folder / "landscape.json", folder / "landscape.csv"
    write_atomically(as_json, _json(numbers))
    write_atomically(as_csv, _csv(numbers))
    return [as_json, as_csv]


def _json(numbers: Numbers) -> str:
    width = len(numbers.axis)
    rows = [numbers.grid[start : start + width] for start in range(0, width * width, width)]
    values = {
        "run": numbers.run,
        "labels": numbers.labels,
        "settings": numbers.settings,
        "centre": numbers.centre._asdict(),
        "cosine": numbers.cosine,
        "flatness": numbers.flatness(),
        "definitions": DEFINITIONS,
        "not_finite": numbers.not_finite,
    }
    text = to_json(values, indent=2).removesuffix("\n}")
    # One line per row of the grid; one per number would be unreadable.
    for name, grid in (
        ("alphas", [numbers.axis]),
        ("betas", [numbers.axis]),
        ("loss", [[point.loss for point in row] for row in rows]),
        ("accuracy", [[point.accuracy for point in row] for row in rows]),
    ):
        lines = [to_json(row) for row in grid]
        body = lines[0] if name.endswith("as") else "[\n    " + ",\n    ".join(lines) + "\n  ]"
        text += f',\n  "{name}": {body}'
    return text + "\n}\n"


def _csv(numbers: Numbers) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("alpha", "beta", "loss", "accuracy"))
    places = [(alpha, beta) for alpha in numbers.axis for beta in numbers.axis]
    for (alpha, beta), point in zip(places, numbers.grid, strict=True):
        writer.writerow((alpha, beta, "" if point.loss is None else point.loss, point.accuracy))
    return file.getvalue()
