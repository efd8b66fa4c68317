"""The table of a network's layers on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from gradspike.config.schema import ExperimentConfig
from gradspike.cost.neurobench_metrics import METRICS
from gradspike.shown import counted
from gradspike.terminal.tables import console
from gradspike.tools.describe.measure import Description

WIDE = 100


def print_description(
    config: ExperimentConfig, network: Description, twins: list[tuple[str, Description]], published: str | None
) -> None:
    """Print the layers and the totals, also of the twins; for a converted network also its report."""
    out = console()
    size = config.dataset.image_size
    shape = (
        f"{config.dataset.channels}x{size}x{size}"
        if config.dataset.has_space
        else f"{config.dataset.channels} channels"
    )
    out.print(
        f"{config.model.name} on {config.dataset.name} ({shape}), method "
        f"{config.method_label()}, T = {config.time_steps}, {config.trainer.precision}",
    )
    out.print(
        "For one sample and all time steps. MACs: evaluation pass. Kept: activations that a training pass keeps for "
        "its backward pass.",
    )
    total = network.totals()
    # Small units for small networks, so that no row is all zeros.
    macs_unit = (1e3, "k") if total["macs"] < 1e7 else (1e6, "M")
    kept_unit = (2**10, "KiB") if total["kept_bytes"] < 2**23 else (2**20, "MiB")

    def cost(parameters: int, macs: int, kept_bytes: int) -> tuple[str, str, str]:
        return (
            f"{parameters:,}" if parameters else "",
            f"{macs / macs_unit[0]:,.2f}" if macs else "",
            f"{kept_bytes / kept_unit[0]:,.2f}" if kept_bytes else "",
        )

    wide = out.width >= WIDE
    caption = None if wide else f"a terminal of {WIDE} columns also shows the type of each layer"
    table = Table(caption=caption, caption_justify="left")
    table.add_column("layer", overflow="fold")
    if wide:
        table.add_column("type", overflow="fold")
    for column in ("steps", "output", "parameters", f"MACs ({macs_unit[1]})", f"kept ({kept_unit[1]})"):
        table.add_column(column, justify="right")
    for layer in network.layers:
        shape = "x".join(str(side) for side in layer.output)
        numbers = cost(layer.parameters, layer.macs, layer.kept_bytes)
        table.add_row(layer.name, *([layer.kind] if wide else []), str(layer.steps or "-"), shape, *numbers)
    table.add_section()
    for name, one in (("total", network), *twins):
        table.add_row(name, *([""] if wide else []), "", "", *cost(**one.totals()))
    out.print(table)
    for line in network.report:
        out.print(line)
    if published is not None:
        out.print(published)


def print_neurobench(folder: str, checkpoint: str, found: Mapping[str, Any]) -> None:
    """Print NeuroBench's metrics of a run's checkpoint."""
    samples = counted(int(found["samples"]), "test sample")
    out = console()
    out.print(f"NeuroBench's metrics of {folder}, {checkpoint}, on {samples}", soft_wrap=True)
    table = Table()
    table.add_column("per sample, all time steps")
    table.add_column("value", justify="right")
    for metric in METRICS:
        value = metric.factor * found[metric.name]
        table.add_row(metric.head, f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}")
    out.print(table)
