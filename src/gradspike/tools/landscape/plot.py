"""The plot of a loss surface: loss and accuracy over the plane, as filled contours."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradspike.drawing import naming_missing_letters
from gradspike.shown import counted
from gradspike.tools.landscape.numbers import Numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

FILLS = 40  # shades
MOST_LINES = 12
DECADE = 10.0  # a loss over a larger range gets a logarithmic scale
STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 13,
    "color": "red",
    "markeredgecolor": "white",
    "linestyle": "none",
}
MASKED = "0.8"  # light grey, which neither colour map has


def draw(path: Path, numbers: Numbers) -> Path:
    """Draw the surface into a PNG file, atomically. Returns the path."""
    # Without pyplot, which needs a window system and has global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    width = len(numbers.axis)
    loss = np.array([math.nan if point.loss is None else point.loss for point in numbers.grid]).reshape(width, width)
    accuracy = 100 * np.array([point.accuracy for point in numbers.grid]).reshape(width, width)
    figure = Figure(figsize=(12, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    # A name may contain $, which matplotlib would read as mathematics.
    figure.suptitle("\n".join(_title(numbers)), fontsize=13, parse_math=False)
    split = numbers.settings["split"]
    _panel(left, numbers.axis, loss, f"{split} loss", "viridis_r", logarithmic=_spans_decades(loss), form="{:g}")
    _panel(right, numbers.axis, accuracy, f"{split} accuracy in %", "cividis", logarithmic=False, form="{:g} %")
    left.set_ylabel("first direction, alpha")
    keys: list[Line2D | Patch] = [Line2D([], [], **STAR, label="trained weights")]
    if numbers.not_finite:
        note = f"loss not finite ({numbers.not_finite} of {len(numbers.grid)} points)"
        keys.append(Patch(facecolor=MASKED, label=note))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    temporary = path.with_name(f".{path.name}.part")  # the points file is locked, so no other process writes it
    try:
        with naming_missing_letters(str(path)):
            figure.savefig(temporary, format="png", metadata={"Software": None})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _title(numbers: Numbers) -> list[str]:
    labels, centre = numbers.labels, numbers.centre
    loss = "not finite" if centre.loss is None else f"{centre.loss:.4g}"
    statistics = ", norms with batch statistics" if numbers.settings["norm_statistics"] == "batch" else ""
    return [
        f"{labels['method']} on {labels['dataset']}, {labels['model']}, seed {labels['seed']}: "
        f"{numbers.settings['split']} accuracy {100 * centre.accuracy:.2f} %, loss {loss}",
        f"checkpoint {labels['checkpoint']} (epoch {labels['epoch']}), {counted(labels['samples'], 'sample')}, "
        f"filter-normalised random directions of seed {numbers.settings['seed']}{statistics}",
    ]


def _spans_decades(values: NDArray[np.float64]) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() > DECADE * finite.min())


def _panel(
    axes: Axes,
    axis: list[float],
    values: NDArray[np.float64],
    title: str,
    colours: str,
    *,
    logarithmic: bool,
    form: str,
) -> None:
    """One plane. values: [alpha, beta]; alpha increases upwards."""
    from matplotlib.colors import LogNorm, Normalize

    axes.set_title(title + (", logarithmic colours" if logarithmic else ""), fontsize=11)
    axes.set_xlabel("second direction, beta")
    axes.set_facecolor(MASKED)
    axes.set_aspect("equal")
    axes.set_xlim(axis[0], axis[-1])
    axes.set_ylim(axis[0], axis[-1])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high > low:
        plane: Any = np.ma.masked_invalid(values)
        shades = np.geomspace(low, high, FILLS) if logarithmic else np.linspace(low, high, FILLS)
        norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
        filled = axes.contourf(axis, axis, plane, levels=shades, norm=norm, cmap=colours)
        levels = _line_levels(low, high, logarithmic)
        lines = axes.contour(axis, axis, plane, levels=levels, colors="white", linewidths=0.8)
        _label(axes.clabel(lines, fmt=form.format, fontsize=9, colors="black", inline=False), extent=axis[-1])
        bar = axes.figure.colorbar(filled, ax=axes, shrink=0.9)
        bar.set_ticks(levels, labels=[form.format(level) for level in levels])
        bar.minorticks_off()
    elif finite.size:
        whole = finite.size == values.size
        axes.set_facecolor("white" if whole else MASKED)
        axes.text(0, axis[-1] / 2, f"{form.format(low)} {'everywhere' if whole else 'where finite'}", ha="center")
    axes.plot(0, 0, **STAR, zorder=10)


def _label(texts: Iterable[Text], extent: float) -> None:
    """Make the labels of lines readable on any colour, and remove those near the star and the border."""
    from matplotlib.patheffects import withStroke

    for text in texts:
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        x, y = text.get_position()
        if math.hypot(x, y) < 0.15 * extent or max(abs(x), abs(y)) > 0.95 * extent:
            text.remove()


def _line_levels(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round values between `low` and `high`: evenly spaced, or 1, 2 and 5 times (or only) powers of ten."""
    from matplotlib.ticker import MaxNLocator

    if not logarithmic:
        ticks = MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return [float(tick) for tick in ticks if low <= tick <= high]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 4 else (1,)
    levels = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    inside = [level for level in levels if low <= level <= high]
    return inside[:: math.ceil(len(inside) / MOST_LINES)]
