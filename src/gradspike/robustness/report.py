"""The table and the figure of a robustness evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from rich.table import Table

from gradspike.drawing import naming_missing_letters
from gradspike.exhausted import not_written
from gradspike.robustness.measure import Robustness
from gradspike.robustness.options import REACH, RESTARTS, STEPS, RobustnessKeys
from gradspike.shown import counted
from gradspike.terminal.tables import console, percent

STYLES = (("#0072b2", "o", "-"), ("#d55e00", "s", "--"))
AXES = {
    "noise": "standard deviation of the noise (pixels 0 to 1)",
    "event_drop": "share of events dropped",
}
EPSILON_AXIS = "epsilon: largest change of a pixel (pixels 0 to 1)"


def described(keys: RobustnessKeys) -> str:
    """The settings in words: `pgd: 10 steps, 1 restart, surrogate arctan`."""
    if keys.corrupt is not None:
        return f"{keys.corrupt}, seed {keys.seed or 0}"
    parts = [str(keys.attack)]
    if keys.attack == "pgd":
        size = f"{REACH:g} epsilon / steps" if keys.step_size is None else f"{keys.step_size:.4g}"
        steps, restarts = keys.steps or STEPS, keys.restarts or RESTARTS
        parts += [f"{counted(steps, 'step')} of {size}", counted(restarts, "restart"), f"seed {keys.seed or 0}"]
    parts.append("the run's surrogate" if keys.surrogate is None else f"surrogate {keys.surrogate}")
    if keys.width is not None:
        parts.append(f"width {keys.width:g}")
    return ", ".join(parts)


def print_robustness(folder: str, split: str, keys: RobustnessKeys, found: Mapping[str, Robustness]) -> None:
    """Print the accuracy of each checkpoint at each strength."""
    out = console()
    out.print(f"{folder}, {split} split", soft_wrap=True)
    out.print(described(keys))
    table = Table()
    table.add_column("checkpoint")
    strength = "epsilon" if keys.attack is not None else "level"
    for column in (strength, "accuracy", "95 % interval", "n"):
        table.add_column(column, justify="right")
    for name, one in found.items():
        for level in one.levels:
            low, high = level.interval
            table.add_row(
                name,
                _strength(level.strength, as_ratio=keys.attack is not None),
                percent(level.accuracy),
                f"[{100 * low:.2f}, {100 * high:.2f}]",
                f"{level.samples:,}",
            )
        table.add_section()
    out.print(table)
    for name, one in found.items():
        if one.without_gradient:
            samples = counted(one.levels[0].samples, "sample")
            out.print(
                f"{name}: the gradient of {one.without_gradient:,} of {samples} is 0 in every pixel. "
                "The attack finds no direction for them; try another surrogate or a greater width.",
                soft_wrap=True,
            )


def _strength(value: float, as_ratio: bool) -> str:
    if value == 0:
        return "0 (clean)"
    ratio = Fraction(value * 255).limit_denominator(1000)
    whole = as_ratio and ratio.denominator == 1 and abs(value * 255 - float(ratio)) < 1e-9
    return f"{value:.4g} ({ratio}/255)" if whole else f"{value:.4g}"


def draw(path: Path, title: str, split: str, keys: RobustnessKeys, found: Mapping[str, Robustness]) -> None:
    """Draw accuracy over strength into a PNG file, atomically. Raises UserError if it cannot be written."""
    # Without pyplot, which needs a window system and has global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # A name may contain $, which matplotlib would read as mathematics.
    axes.set_title(f"{title}\n{described(keys)}", fontsize=9, parse_math=False)
    for (name, one), (colour, mark, line) in zip(found.items(), STYLES, strict=False):
        x = [level.strength for level in one.levels]
        y = [100 * level.accuracy for level in one.levels]
        low, high = zip(*(level.interval for level in one.levels), strict=True)
        axes.fill_between(x, [100 * value for value in low], [100 * value for value in high], color=colour, alpha=0.15)
        axes.plot(x, y, line, marker=mark, color=colour, markersize=4, label=f"{name} (epoch {one.epoch})")
    axes.set_xlabel(AXES.get(str(keys.corrupt), EPSILON_AXIS), fontsize=9)
    axes.set_ylabel(f"{split} accuracy (%), 95 % interval", fontsize=9)
    axes.set_ylim(0, 101)
    axes.set_xlim(left=-0.02 * keys.strengths[-1])
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming_missing_letters(str(path)):
            figure.savefig(temporary, format="png", metadata={"Software": None})  # the same numbers, the same file
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
