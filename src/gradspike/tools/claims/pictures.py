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
    """All pictures that the grids of a summary allow."""
    planes = [run for run in summary.runs if LOSS in run.grids]
    made = [_planes(f"{name}_planes", planes, float(str(summary.setting["extent"])))] if planes else []
    rates = [run for run in summary.runs if RATE in run.grids]
    return [*made, *([_rates(f"{name}_pictures", rates)] if rates else [])]


def _planes(name: str, runs: Sequence[Record], extent: float) -> Figure:
    """Contours of the loss: a row for each group, a column for each seed, the same levels for all. A loss that is not
    finite is left blank."""
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    groups, seeds = list(dict.fromkeys(map(labelled, runs))), sorted({run.seed for run in runs})
    losses = [value for run in runs for row in run.grids[LOSS] for value in row if value is not None]
    levels = MaxNLocator(LEVELS).tick_values(min(losses), max(losses))
    canvas = Canvas(figsize=(2.3 * len(seeds) + 1, 2.5 * len(groups)), layout="constrained")
    every = canvas.subplots(len(groups), len(seeds), squeeze=False, sharex=True, sharey=True)
    for run in runs:
        axes: Axes = every[groups.index(labelled(run))][seeds.index(run.seed)]
        values = _finite(run.grids[LOSS])
        axis = [extent * (2 * place / (len(values) - 1) - 1) for place in range(len(values))]
        filled = axes.contourf(axis, axis, values, levels=levels, cmap="viridis_r")
        axes.plot(0, 0, "*", color="black", markersize=7)
        what = f"loss {run.values['loss']:.2f}, rise {run.values['loss_rise']:.2f}"
        axes.set_title(f"{labelled(run)}, seed {run.seed}\n{what}", color=GREY, fontsize=7)
        axes.set_aspect("equal")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(colors=GREY, labelsize=6)
    bar = canvas.colorbar(filled, ax=every, shrink=0.7)
    bar.ax.tick_params(colors=GREY, labelsize=6)
    bar.set_label("validation loss", color=GREY, fontsize=7)
    title = "Loss on a plane around the trained weights (star), and its median rise at half the extent"
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
