"""Terminal output of a sweep: a live table, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from gradspike.errors import UserError
from gradspike.shown import counted, printable, shown
from gradspike.terminal.seeds import seeds_table
from gradspike.terminal.tables import console, percent
from gradspike.tools.sweep.file import Metric
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.results import described, results_table, shown_value
from gradspike.tools.sweep.trial import find_run, log_end

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from gradspike.tools.sweep.running import Active

SECONDS_BETWEEN_LINES = 60.0


class Table:
    """A context manager for a sweep. `show` redraws the live table, `tell` prints a permanent line."""

    def __init__(self, metrics: Sequence[Metric], total: int, restart: str) -> None:
        self.metrics = metrics
        self.metric = metrics[0]
        self.total = total
        self.restart = restart
        self._out = console()
        self._live = Live(console=self._out, auto_refresh=False) if self._out.is_terminal else None
        self._durations: list[float] = []
        self._said = time.monotonic()

    def __enter__(self) -> Table:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(Text(), refresh=True)
            self._live.stop()

    def tell(self, record: Record, what: str) -> None:
        """Print one line about a trial."""
        if record.state in ("finished", "pruned"):
            if record.state == "finished" and record.started:
                self._durations.append(time.time() - record.started)
            what = f"{what}, {self.metric.name} {self._shown(record.value)}"
        line = f"{time.strftime('%H:%M:%S')}  trial {record.number}  {described(record.parameters)}  {what}"
        self._out.print(line, soft_wrap=True)

    def stopping(self, trials: int, signals: int) -> None:
        """Print that a signal was passed on."""
        more = "a second signal stops at once" if signals == 1 else "a third one kills"
        does = "finishes its step and saves" if trials == 1 else "finish their step and save"
        self._out.print(f"Stopping: {counted(trials, 'trial')} {does} ({more})." if trials else "Stopping.")

    def show(
        self, trials: Sequence[FrozenTrial], active: Mapping[int, Active], again: Mapping[int, Record], workers: int
    ) -> None:
        """Redraw the live table; without a terminal, print a line every minute."""
        if self._live is None:
            if time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
                self._said = time.monotonic()
                line = self._overview(trials, active, workers)
                self._out.print(f"{time.strftime('%H:%M:%S')}  {line}", soft_wrap=True)
            return
        line = self._overview(trials, active, workers)
        table = RichTable(title_justify="left")
        for column in ("trial", "parameters", "state", "epoch", self.metric.name, "left"):
            table.add_column(column, justify="left" if column in ("parameters", "state") else "right")
        for number, one in sorted(active.items()):
            state = "stopping" if one.stopping_since is not None else "running" if one.progress else "starting"
            done = one.progress.done if one.progress else 0
            latest = one.progress.latest if one.progress else None
            left = one.progress.left(one.epochs) if one.progress else None
            table.add_row(
                str(number), described(one.record.parameters), state, f"{done}/{one.epochs}", self._shown(latest),
                duration(left),
            )  # fmt: skip
        for number, record in sorted(again.items()):
            table.add_row(str(number), described(record.parameters), "waiting for a retry", "", "", "")
        self._live.update(Group(table, Text(line)), refresh=True)

    def closing(
        self, folder: SweepFolder, trials: Sequence[FrozenTrial], elsewhere: Sequence[FrozenTrial], signals: list[int]
    ) -> None:
        """Print the table of all trials, the reasons of failures, and the command to continue."""
        records = [record for trial in trials if (record := folder.record(trial.number)) is not None]
        table = RichTable(title=f"{printable(folder.path.name)}: {self._counted(trials)}", title_justify="left")
        names = [metric.name for metric in self.metrics]
        for column in ("trial", "parameters", "state", *names, "test accuracy (last)"):
            table.add_column(column, justify="left" if column in ("parameters", "state") else "right")
        over_seeds: dict[str, list[float]] = {}
        for record in sorted(records, key=lambda record: record.number):
            accuracy = _test_accuracy(folder, record)
            if accuracy is not None:
                setting = described({key: value for key, value in record.parameters.items() if key != "seed"})
                over_seeds.setdefault(setting or "all", []).append(accuracy)
            table.add_row(
                str(record.number), described(record.parameters), record.state,
                self._shown(record.value), *(shown_value(metric, record.second) for metric in self.metrics[1:]),
                percent(accuracy) if record.state == "finished" else "",
            )  # fmt: skip
        self._out.print(table)
        if (results := results_table(trials, self.metrics)) is not None:
            self._out.print(results)
        if (means := seeds_table(over_seeds, "test accuracy (last)")) is not None:
            self._out.print(means)
        for record in records:
            if record.state == "failed":
                self._out.print(
                    f"\ntrial {record.number} failed{_attempts(record.attempts)}: {record.reason}",
                    soft_wrap=True,
                )  # fmt: skip
                for line in log_end(folder, record.number):
                    self._out.print(f"  {printable(line)}", soft_wrap=True)
                self._out.print(f"  whole log: {shown(folder.log(record.number))}", soft_wrap=True)
        if elsewhere:
            numbers = ", ".join(f"{trial.number} ({trial.user_attrs.get('place', '?')})" for trial in elsewhere)
            self._out.print(f"Running elsewhere: trial {numbers}", soft_wrap=True)
        self._out.print(f"sweep: {shown(folder.path)}", soft_wrap=True)
        if signals or any(record.state in ("failed", "interrupted") for record in records):
            self._out.print(f"To continue: {self.restart}", soft_wrap=True)

    def _overview(self, trials: Sequence[FrozenTrial], active: Mapping[int, Active], workers: int) -> str:
        left = self._left(trials, active, workers)
        about = f", about {duration(left)} left" if left is not None else ""
        running = ", ".join(
            f"trial {number} epoch {one.progress.done if one.progress else 0}/{one.epochs}"
            for number, one in sorted(active.items())
        )
        return f"{self._counted(trials)}{about}{': ' + running if running and self._live is None else ''}"

    def _counted(self, trials: Sequence[FrozenTrial]) -> str:
        names = {"COMPLETE": "finished", "RUNNING": "running", "WAITING": "waiting", "PRUNED": "pruned"}
        counts = Counter(
            trial.user_attrs["state"]
            if trial.user_attrs.get("state") in ("failed", "interrupted") and trial.state.name == "RUNNING"
            else names.get(trial.state.name, trial.state.name.lower())
            for trial in trials
        )  # fmt: skip
        order = ("finished", "pruned", "failed", "interrupted", "running", "waiting")
        return f"{counted(len(trials), 'trial')}: " + ", ".join(
            f"{counts[name]} {name}" for name in order if counts[name]
        )

    def _left(self, trials: Sequence[FrozenTrial], active: Mapping[int, Active], workers: int) -> float | None:
        """Estimated seconds until all trials are done, from finished and running ones."""
        lefts = [one.progress.left(one.epochs) if one.progress else None for one in active.values()]
        known = [left for left in lefts if left is not None]
        if self._durations:
            usual = sum(self._durations) / len(self._durations)
        elif known and len(known) == len(lefts):
            usual = max(time.monotonic() - one.since for one in active.values()) + max(known)
        else:
            return None
        waiting = sum(trial.state.name == "WAITING" for trial in trials)
        return (sum(usual if left is None else left for left in lefts) + waiting * usual) / max(1, workers)

    def _shown(self, value: float | None) -> str:
        return shown_value(self.metric, value)


def _attempts(count: int) -> str:
    """The attempts of a trial in all starts of the sweep; none if its configuration was refused."""
    return f" after {counted(count, 'attempt')}" if count else ""


def duration(seconds: float | None) -> str:
    """`1:05 h`, `4 min` or `35 s`."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02} h"


def _test_accuracy(folder: SweepFolder, record: Record) -> float | None:
    """Of the last epoch, as a fraction; None if the trial has not finished or its summary is damaged."""
    run = find_run(folder, record) if record.state == "finished" else None
    if run is None:
        return None
    try:
        return float(run.summary()["test"]["last"]["accuracy"])
    except (UserError, KeyError, TypeError, ValueError):
        return None
