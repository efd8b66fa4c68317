"""The image of a run's curves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gradspike.drawing import naming_missing_letters
from gradspike.exhausted import not_written
from gradspike.tools.curves.records import Curves, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
COLOURS = ("#0072b2", "#d55e00")
FEW = 20  # up to this number of points each one has a mark
FEW_LAYERS = 5  # whose names all fit the legend; of more, it has the first and the last


def draw(path: Path, found: Curves, title: str, *, log: bool) -> Path:
    """Draw all panels into a file, atomically. Raises UserError if it cannot be written."""
    # Without pyplot, which needs a window system and has global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = -(-len(found.panels) // COLUMNS)
    figure = Figure(figsize=(4.4 * COLUMNS, 3.1 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    # A name may contain $, which matplotlib would read as mathematics.
    figure.suptitle(title, fontsize=12, parse_math=False)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, panel in zip(grid, found.panels, strict=False):
        axes.set_title(panel.title, fontsize=10)
        axes.grid(alpha=0.3)
        axes.tick_params(which="both", labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        when = "epoch" if found.epochs else "optimiser step"
        if panel.by_layer and panel.measured_once:
            _draw_bars(axes, panel, when)
            continue
        _draw_panel(axes, panel)
        axes.set_xlabel(when, fontsize=9)
        if found.epochs:
            axes.set_xlim(-0.02 * found.epochs, 1.02 * found.epochs)
        if log and panel.title == "loss":
            axes.set_yscale("log")
    for axes in grid[len(found.panels) :]:
        axes.remove()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming_missing_letters(str(path)):
            figure.savefig(temporary, format=path.suffix[1:].lower(), metadata=_metadata(path))
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path, error, named="out=") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _metadata(path: Path) -> dict[str, None]:
    """Without dates and versions, so that the same run gives the same file."""
    dates = {".png": "Software", ".pdf": "CreationDate", ".svg": "Date"}
    return {dates[path.suffix.lower()]: None}


def _draw_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib import colormaps

    layers = len(panel.curves) - 1
    for place, curve in enumerate(panel.curves):
        mark = "o" if len(curve.x) == 1 else "." if len(curve.x) <= FEW else ""
        if not panel.by_layer:
            axes.plot(curve.x, curve.y, mark + "-", color=COLOURS[place % len(COLOURS)], label=curve.name)
            if len(curve.x) == 1:
                text = f"{curve.y[0]:.4g}"
                where = (curve.x[0], curve.y[0])
                axes.annotate(text, where, (-7, 0), textcoords="offset points", ha="right", va="center", fontsize=8)
        elif place == 0:
            axes.plot(curve.x, curve.y, mark + "-", color="black", linewidth=2, label="mean over layers", zorder=3)
        else:
            name = curve.name if place in (1, layers) or layers <= FEW_LAYERS else None
            colour = colormaps["viridis"]((place - 1) / max(1, layers - 1) * 0.9)
            axes.plot(curve.x, curve.y, mark + "-", color=colour, linewidth=0.9, label=name)
    if len(panel.curves) > 1:
        axes.legend(fontsize=7, frameon=False)


def _draw_bars(axes: Axes, panel: Panel, when: str) -> None:
    """The values of the layers at the only measurement, which a line cannot show."""
    mean, *layers = panel.curves
    values = [layer.y[0] for layer in layers]
    axes.set_axisbelow(True)
    axes.bar(range(1, len(values) + 1), values, color=COLOURS[0])
    axes.axhline(mean.y[0], color="black", linewidth=1, linestyle="--", label=f"mean over layers: {mean.y[0]:.4g}")
    axes.margins(y=0.25)  # room for the label
    axes.legend(fontsize=7, frameon=False, loc="upper right")
    axes.set_xlabel(f"layer, from input to output (measured once, at {when} {mean.x[0]:.3g})", fontsize=9)
