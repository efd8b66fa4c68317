"""`gradspike landscape`: its arguments, steps and progress. Imports nothing heavy before arguments are checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradspike.cli.arguments import Command
from gradspike.config.trust import TRUST, trust_all
from gradspike.exhausted import one_sentence
from gradspike.runs.data import check_data_of_run
from gradspike.runs.folder import RunFolder
from gradspike.shown import counted, expanded, shown
from gradspike.tools.landscape.numbers import Numbers, Point, grid_axis, write_numbers
from gradspike.tools.landscape.options import LandscapeConfig
from gradspike.tools.landscape.points import PointsFile, writing

LINES = 10  # progress lines without a terminal

USAGE = """\
Compute loss and accuracy on a plane of weights around a trained network, along two random filter-normalised directions.

  gradspike landscape run=runs/<run>
  gradspike landscape run=runs/<run> checkpoint=best points=41 extent=0.5

Arguments:
  run              the run's folder
  checkpoint       last | best (by validation accuracy)                    (last)
  split            val | train | test                                      (val; see below)
  points           grid points along each direction, odd                   (21)
  extent           half the width of the grid; at 1 every filter is
                   displaced by its own norm                               (1.0)
  seed             seed of the two directions                              (0)
  samples          use only this many samples, evenly by class             (null: the whole split)
  batch_size       samples per batch                                       (null: the run's dataset.eval_batch_size)
  workers          loader processes                                        (the run's dataset.workers)
  norm_statistics  stored (running statistics) | batch                     (stored)
  accelerator      auto | cpu | gpu                                        (auto)
  data_dir         folder of the data, if it has moved
  dataset.source   folder or archive of the data's files, if they have moved
  engine           auto | eager | compiled | triton                       (the run's)
  out              folder of the result                                   (<run>/landscape_<checkpoint>_<split>_s<seed>)
  restart          true: discard earlier points                            (false)
  --trust          import the code outside gradspike that the run names, also if your account never trained with it

The test split is used only on request, because a split that was used to choose methods or settings no longer tests
them. Repeat the command to continue an interrupted one.
"""

COMMAND = Command("landscape", USAGE, keys=LandscapeConfig, switches=(TRUST,))


def landscape(words: list[str]) -> int:
    """Compute the missing points, then write landscape.json, .csv and .png. Returns the exit code."""
    typed = COMMAND.parse(words)
    arguments: LandscapeConfig = typed.options
    if TRUST in typed.flags:
        trust_all()
    run = RunFolder.open(arguments.run)
    checkpoint = run.checkpoint(arguments.checkpoint)
    out = expanded(arguments.out) if arguments.out else run.path / _folder_name(arguments)
    check_data_of_run(run.config(), arguments.data_dir, arguments.source)

    with one_sentence(lambda: _to_lower(arguments), keys=""):
        return _draw(run, checkpoint, arguments, out)


def _to_lower(arguments: LandscapeConfig) -> str:
    samples = "" if arguments.samples is None else f"={arguments.samples}"
    return f"lower batch_size or samples{samples}; finished points are kept"


def _draw(run: RunFolder, checkpoint: Path, arguments: LandscapeConfig, out: Path) -> int:
    from gradspike.tools.landscape.plot import draw
    from gradspike.tools.landscape.surface import open_surface

    opened = open_surface(run, checkpoint, arguments)
    axis = grid_axis(arguments.points, arguments.extent)
    with PointsFile(out, opened.settings, len(axis) ** 2, arguments.restart) as file:
        samples = counted(opened.labels["samples"], "sample")
        print(f"{len(axis)} x {len(axis)} points on {samples}, {len(file.done)} already done")
        _compute(opened.surface.at, axis, file)
        name = run.path.name
        numbers = Numbers(name, opened.labels, opened.settings, opened.surface.cosine, axis, file.grid())
        with writing(out):
            files = [*write_numbers(out, numbers), draw(out / "landscape.png", numbers)]
    _print_result(numbers, files)
    return 0


def _folder_name(arguments: LandscapeConfig) -> str:
    return f"landscape_{arguments.checkpoint}_{arguments.split}_s{arguments.seed}"


def _compute(at: Callable[[float, float], Point], axis: list[float], file: PointsFile) -> None:
    """Compute all points that are missing in the file, row by row."""
    missing = [index for index in range(len(axis) ** 2) if index not in file.done]
    with _progress(len(axis) ** 2, len(file.done)) as advance:
        for index in missing:
            row, column = divmod(index, len(axis))
            file.add(index, at(axis[row], axis[column]))
            advance()


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[], None]]:
    """A function to call after each point. Shows a bar with the remaining time on a terminal, else a few lines."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from gradspike.terminal.tables import console

    out = console()
    if out.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=out) as bar:
            task = bar.add_task("loss surface, points", total=total, completed=done)
            yield lambda: bar.advance(task)
        return
    started, count, said = time.perf_counter(), done, done * LINES // total

    def advance() -> None:
        nonlocal count, said
        count += 1
        if count * LINES // total > said:
            said = count * LINES // total
            left = (time.perf_counter() - started) / (count - done) * (total - count)
            print(f"points {count}/{total}  {left:.0f} s left", flush=True)

    yield advance


def _print_result(numbers: Numbers, files: list[Path]) -> None:
    flatness: dict[str, Any] = numbers.flatness()
    centre = numbers.centre
    loss = "not finite" if centre.loss is None else f"{centre.loss:.4f}"
    print(f"trained weights: loss {loss}, accuracy {100 * centre.accuracy:.2f} %")
    print(f"share of the plane with less than twice that loss: {_shown(flatness['share_below_twice_centre'], '.3f')}")
    print(f"median increase of the loss at half the extent: {_shown(flatness['median_increase_at_half'], '.4f')}")
    print(f"cosine of the two directions: {numbers.cosine:+.4f}")
    if numbers.not_finite:
        print(f"the loss is not finite at {counted(numbers.not_finite, 'point')} (null in landscape.json)")
    for file in files:
        print(f"written: {shown(file)}")


def _shown(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)
