"""The tables of training and evaluation."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table
from typing_extensions import override

from gradspike.errors import OutputClosed
from gradspike.runs.folder import Summary
from gradspike.shown import counted, printable
from gradspike.started import typed_command
from gradspike.terminal.seeds import seeds_table


def console() -> Console:
    """The terminal; COLUMNS for a file or pipe, else 120.

    Prints text unchanged, because names and paths may look like markup (`[b]`) or emoji (`:bug:`).
    """
    width = None if Console().is_terminal or os.environ.get("COLUMNS") else 120
    return _Terminal(width=width, markup=False, emoji=False, highlight=False)


class _Terminal(Console):
    """A console that leaves the end to `cli.reporting` if the reader of the output is gone; rich exits with 1."""

    @override
    def on_broken_pipe(self) -> None:
        raise OutputClosed


def percent(value: float | None) -> str:
    """`97.22 %`; a dash if there is no number."""
    return "-" if value is None else f"{100 * value:.2f} %"


def print_result(summary: Summary, seconds: float, folder: str) -> None:
    """Print the closing table of a run: the test of its last and its best checkpoint, and the next command."""
    out = console()
    table = Table(
        title=f"{summary['method']} on {summary['dataset']}, {summary['model']}, seed {summary['seed']}",
        title_justify="left",
    )
    table.add_column("checkpoint")
    for column in ("epoch", "val acc", "test acc", "test loss", "firing rate"):
        table.add_column(column, justify="right")
    validated = "accuracy" in summary["val"]["best"]
    for name, label in (("last", "last epoch"), ("best", "best by val"))[: 2 if validated else 1]:
        val, test = summary["val"][name], summary["test"][name]
        table.add_row(
            label,
            str(val["epoch"] + 1),
            percent(val.get("accuracy")),
            percent(test["accuracy"]),
            f"{test['loss']:.4f}",
            percent(test.get("firing_rate")),
        )
    out.print(table)
    out.print(
        f"{counted(summary['parameters'], 'parameter')}, {counted(summary['epochs'], 'epoch')} in {seconds:.1f} s of "
        "training" + (f", moving average of the weights ({summary['ema']:g})" if summary["ema"] else ""),
        highlight=False,
    )
    out.print(f"run: {printable(folder)}", highlight=False, soft_wrap=True)
    out.print(f"next: {typed_command('evaluate', f'run={folder}', 'split=test')}", highlight=False, soft_wrap=True)


def print_evaluation(folder: str, split: str, results: dict[str, dict[str, float]]) -> None:
    """Print accuracy, loss and firing rate of a run's checkpoints on one split."""
    out = console()
    out.print(f"{folder}, {split} split", highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("checkpoint")
    for column in ("accuracy", "loss", "firing rate"):
        table.add_column(column, justify="right")
    for name, values in results.items():
        table.add_row(name, percent(values["accuracy"]), f"{values['loss']:.4f}", percent(values.get("firing_rate")))
    out.print(table)


def print_trials(trials: list[tuple[str, Summary | None]]) -> None:
    """Print a row for each trial of a multirun, including failed ones, and the means over seeds."""
    out = console()
    table = Table(title=counted(len(trials), "trial"), title_justify="left")
    shared = set.intersection(*(set(overrides.split()) for overrides, _ in trials))
    for column in ("overrides", "val accuracy (last)", "test accuracy (last)", "test accuracy (best by validation)"):
        table.add_column(column)
    over_seeds: dict[str, list[float]] = {}
    for words, summary in trials:
        own = [word for word in words.split() if word not in shared]
        if summary is None:
            table.add_row(" ".join(own), "failed", "", "")
            continue
        values = (summary["val"]["last"], summary["test"]["last"], summary["test"]["best"])
        table.add_row(" ".join(own), *(percent(value.get("accuracy")) for value in values))
        setting = " ".join(word for word in own if not word.startswith("seed="))
        over_seeds.setdefault(setting or "all", []).append(summary["test"]["last"]["accuracy"])
    out.print(table)
    if (means := seeds_table(over_seeds, "test accuracy (last)")) is not None:
        out.print(means)
