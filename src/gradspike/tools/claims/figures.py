"""The papers' figures from stored summaries, as SVG: quantities per layer, per step, and over training."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from gradspike.tools.claims.quantities import by_layer, by_step
from gradspike.tools.claims.summary import Record, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#767d86", "#8c564b", "#9467bd", "#bcbd22")
MARKS = "osD^vP*X<>"
GREY = "#7b8490"  # readable on white and on dark paper
THEOREM = 15.87


@dataclass(frozen=True)
class Figure:
    """One figure: its file name without ending, title, and SVG text."""

    name: str
    title: str
    svg: str


def figures(name: str, summary: Summary) -> list[Figure]:
    """All figures that the runs of a summary allow. No figure for a sweep without a method that varies."""
    groups = measured(summary)
    if not groups:
        return []
    made = []
    for key, title, file in (
        ("firing_rate", "Firing rate per layer (%)", "rate_by_layer"),
        ("gradient_available", "Gradient-available share per layer (%)", "share_by_layer"),
    ):
        lines = {label: [_percent(by_layer(run.last[key])) for run in runs] for label, runs in groups.items()}
        svg = _draw(lines, "spiking layer", title, 1, THEOREM if key == "firing_rate" else None)
        made.append(Figure(f"{name}_{file}", title, svg))
    if int(str(summary.setting.get("time_steps", 1))) > 1:
        title = "Firing rate per time step (%), mean over layers"
        lines = {label: [_percent(by_step(run.last["firing_rate"])) for run in runs] for label, runs in groups.items()}
        made.append(Figure(f"{name}_rate_by_step", title, _draw(lines, "time step", title, 1, None)))
    for key, title in (
        ("kappa", "Surrogate width over training, mean over layers"),
        ("theta", "Threshold over training, mean over layers"),
    ):
        courses = {label: [run.course[key] for run in runs if key in run.course] for label, runs in groups.items()}
        steps = next((course.step for found in courses.values() for course in found), ())
        same = {label: [list(c.mean) for c in found if c.step == steps] for label, found in courses.items()}
        if len(steps) > 1:
            made.append(Figure(f"{name}_{key}", title, _draw(same, "optimiser step", title, 0, None, steps)))
    return made


def measured(summary: Summary) -> dict[str, list[Record]]:
    """The runs whose inside was measured, by their label."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for run in summary.runs:
        if run.last:
            groups[labelled(run)].append(run)
    return groups


def labelled(run: Record) -> str:
    """A run's swept values, for legends."""
    return ", ".join(str(value) for value in run.parameters.values()) or "all"


def _percent(values: Iterable[float]) -> list[float]:
    return [100 * value for value in values]


def _draw(
    lines: Mapping[str, Sequence[Sequence[float]]],
    x_title: str,
    y_title: str,
    first: int,
    level: float | None,
    places: Sequence[int] = (),
) -> str:
    """The SVG of one line for each group: the mean over seeds, with a band from the smallest to the largest seed."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7.2, 3.6), layout="constrained")
    axes = canvas.subplots()
    for place, (label, seeds) in enumerate(lines.items()):
        if seeds:
            _line(axes, place, label, seeds, places or range(first, first + len(seeds[0])))
    if level is not None:
        axes.axhline(level, color=GREY, linewidth=1, linestyle=":")
        axes.annotate(
            f"{level} %: normal potential, theta = mean + std", (0.01, level), xycoords=("axes fraction", "data"),
            xytext=(0, -8), textcoords="offset points", color=GREY, fontsize=7,
        )  # fmt: skip
    _style(axes, x_title, y_title)
    canvas.legend(loc="outside right upper", frameon=False, fontsize=7, labelcolor=GREY)
    return svg_of(canvas)


def svg_of(canvas: Canvas) -> str:
    """The SVG of a figure, the same bytes for the same numbers."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    # The hash of a fixed text names the parts of the file.
    with mpl.rc_context({"svg.hashsalt": "gradspike", "svg.fonttype": "none", "font.family": "sans-serif"}):
        FigureCanvasSVG(canvas)
        content = io.StringIO()
        canvas.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return content.getvalue()


def _line(axes: Axes, place: int, label: str, seeds: Sequence[Sequence[float]], x: Sequence[int]) -> None:
    columns = list(zip(*seeds, strict=True))
    colour = COLOURS[place % len(COLOURS)]
    mark = MARKS[place % len(MARKS)] if len(x) <= 25 else ""
    style = "-" if place < len(COLOURS) else "--"
    means = [fmean(c) for c in columns]
    axes.plot(x, means, style, color=colour, linewidth=1.3, marker=mark, markersize=3.5, label=label)
    _band: Callable[..., object] = axes.fill_between
    _band(x, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.13, linewidth=0)


def _style(axes: Axes, x_title: str, y_title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(x_title, color=GREY, fontsize=8)
    axes.set_title(y_title, color=GREY, fontsize=9, loc="left")
    axes.tick_params(colors=GREY, labelsize=7)
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(GREY)
