"""The tables of a profile on the terminal."""

from __future__ import annotations

from rich.table import Table

from gradspike.config.schema import ExperimentConfig
from gradspike.shown import counted
from gradspike.terminal.tables import console
from gradspike.tools.profile.measure import KINDS, Profile

TOP = 10


def print_profile(config: ExperimentConfig, mine: Profile, twin: Profile | None, device: str) -> None:
    """Print time by kind of work, memory by use, and the slowest layers, each next to the twin."""
    out = console()
    out.print(
        f"{config.model.name} on {config.dataset.name}, method {config.method_label()}, T = {config.time_steps}, batch "
        f"{config.dataset.batch_size}, {config.trainer.precision}, engine {config.engine}, on {device}",
    )
    out.print(_time(mine, twin))
    out.print(_memory(mine, twin))
    out.print(_layers(mine, twin))
    waits = "not counted without CUDA" if mine.waits is None else f"{mine.waits} per step"
    out.print(f"Waits of the host for the device: {waits}")


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    return table


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.2f}" if seconds else ""


def _beside(mine: float, its: float) -> tuple[str, str]:
    """The twin's time, and the ratio of ours to it."""
    return _ms(its), f"{mine / its:.2f}" if its else ""


def _time(mine: Profile, twin: Profile | None) -> Table:
    table = _table(
        "Time of a training step (ms)",
        ["", "forward", "backward", "all", "share", *(["twin", "ratio"] if twin else [])],
    )
    for kind in KINDS:
        seconds = mine.kind(kind)
        row = [kind, _ms(mine.kind(kind, "forward")), _ms(mine.kind(kind, "backward")), _ms(seconds)]
        row.append(f"{100 * seconds / mine.total():.1f} %")
        table.add_row(*row, *(_beside(seconds, twin.kind(kind)) if twin else ()))
    table.add_section()
    whole = ["step", "", "", _ms(mine.total()), "100.0 %"]
    table.add_row(*whole, *(_beside(mine.total(), twin.total()) if twin else ()))
    return table


def _memory(mine: Profile, twin: Profile | None) -> Table:
    table = _table("Memory of a training step (MiB)", ["", "all", "share", *(["twin", "ratio"] if twin else [])])

    def row(name: str, size: int, its: int | None) -> None:
        cells = [name, f"{size / 2**20:,.2f}", f"{100 * size / total:.1f} %"]
        if its is not None:
            cells += [f"{its / 2**20:,.2f}", f"{size / its:.2f}" if its else ""]
        table.add_row(*cells)

    total = sum(mine.memory.values())
    for name in dict.fromkeys([*mine.memory, *(twin.memory if twin else ())]):
        row(name, mine.memory.get(name, 0), twin.memory.get(name, 0) if twin else None)
    table.add_section()
    row("all", total, sum(twin.memory.values()) if twin else None)
    return table


def _layers(mine: Profile, twin: Profile | None) -> Table:
    columns = ["layer", "kind", "forward", "backward", "all", "share", *(["twin", "ratio"] if twin else [])]
    kinds = {part.layer: part.kind for part in mine.seconds if part.layer}
    table = _table(f"The {counted(min(TOP, len(kinds)), 'slowest layer')} (ms)", columns)
    for name in sorted(kinds, key=mine.layer, reverse=True)[:TOP]:
        seconds = mine.layer(name)
        row = [name, kinds[name], _ms(mine.layer(name, "forward")), _ms(mine.layer(name, "backward")), _ms(seconds)]
        row.append(f"{100 * seconds / mine.total():.1f} %")
        table.add_row(*row, *(_beside(seconds, twin.layer(name)) if twin else ()))
    return table
