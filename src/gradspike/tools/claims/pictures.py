"""Pictures from stored summaries, as SVG: planes of the loss around trained weights, and firing rates of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradspike.tools.claims.figures import GREY, Figure, labelled, svg_of
from gradspike.tools.claims.summary import Record, Steps, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = 12
LOSS, IMAGE, RATE = "loss", "image", "rate"
"""Names of grids: the loss on a plane, a grey image, and the firing rate of each of its pixels."""


def pictures(name: str, summary: Summary) -> list[Figure]:
    """All pictures that the grids of a summary allow; those of the smallest seed."""
    runs = [run for run in summary.runs if run.seed == min(run.seed for run in summary.runs)]
    planes = [run for run in runs if LOSS in run.grids]
    made = [_planes(f"{name}_planes", planes, float(str(summary.setting["extent"])))] if planes else []
    rates = [run for run in runs if RATE in run.grids]
    return [*made, *([_rates(f"{name}_pictures", rates)] if rates else [])]


def _planes(name: str, runs: Sequence[Record], extent: float) -> Figure:
    """Contours of the loss, the same levels for all runs. A loss that is not finite is left blank."""
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    title = f"Loss on a plane around the trained weights, seed {runs[0].seed}"
    losses = [value for run in runs for row in run.grids[LOSS] for value in row if value is not None]
    levels = MaxNLocator(LEVELS).tick_values(min(losses), max(losses))
    canvas = Canvas(figsize=(3.2 * len(runs) + 0.8, 3.7), layout="constrained")
    every: list[Axes] = list(canvas.subplots(1, len(runs), squeeze=False)[0])
    for axes, run in zip(every, runs, strict=True):
        values = _finite(run.grids[LOSS])
        axis = [extent * (2 * place / (len(values) - 1) - 1) for place in range(len(values))]
        filled = axes.contourf(axis, axis, values, levels=levels, cmap="viridis_r")
        axes.plot(0, 0, "*", color="black", markersize=9)
        axes.set_title(f"{labelled(run)}: {run.values['loss']:.2f} at the centre", color=GREY, fontsize=8)
        axes.set_xlabel("second direction", color=GREY, fontsize=8)
        axes.set_aspect("equal")
        axes.tick_params(colors=GREY, labelsize=7)
    every[0].set_ylabel("first direction", color=GREY, fontsize=8)
    bar = canvas.colorbar(filled, ax=every, shrink=0.85)
    bar.ax.tick_params(colors=GREY, labelsize=7)
    bar.set_label("validation loss", color=GREY, fontsize=8)
    return Figure(name, title, svg_of(canvas))


def _rates(name: str, runs: Sequence[Record]) -> Figure:
    """The grey image and the firing rate of each of its pixels, with the SSIM of this picture."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(1.5 * (len(runs) + 1), 1.9), layout="constrained")
    places: list[Axes] = list(canvas.subplots(1, len(runs) + 1))
    (source,) = (run.grids[IMAGE] for run in runs if IMAGE in run.grids)
    shown = [(source, "grey image", "")]
    for run in runs:
        setting = ", ".join(f"{key} {value}" for key, value in run.parameters.items())
        shown.append((run.grids[RATE], setting, f"SSIM {run.values['picture_ssim']:.2f}"))
    for axes, (grid, above, below) in zip(places, shown, strict=True):
        axes.imshow(_finite(grid), cmap="gray", vmin=0, vmax=1)
        axes.set_title(above, color=GREY, fontsize=8)
        axes.set_xlabel(below, color=GREY, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    return Figure(name, "Firing rate of each pixel (black 0, white 1), by threshold", svg_of(canvas))


def _finite(grid: Steps) -> list[list[float]]:
    return [[float("nan") if value is None else value for value in row] for row in grid]
