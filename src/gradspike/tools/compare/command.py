"""`gradspike compare`: options and order of work. Imports nothing heavy by itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gradspike.errors import ConfigError, UserError, did_you_mean
from gradspike.started import typed_command
from gradspike.tools.compare.gather import Gathered, gather, merged
from gradspike.tools.compare.groups import WHAT, group_runs, shaping, text_of
from gradspike.tools.compare.run import Run

if TYPE_CHECKING:
    from gradspike.tools.compare.report import Comparison

MOST_LISTED = 20
OUT = {".html": "the page", ".md": "Markdown", ".tex": "LaTeX", ".csv": "CSV"}

USAGE = """\
Compare trained runs: a table here and, with --out, one page that works offline.

  gradspike compare runs/methods --out report.html
  gradspike compare --sweep runs/sweeps/quick --baseline mpd_agl --out report.html --out table.tex

  FOLDER ...        where runs lie, at any depth; also W&B's offline files (*.wandb)
  --sweep DIR       the folder of a sweep: its trials' runs, and what became of the others; may be given again
  --out FILE        .html the page, .md .tex .csv the main table; may be given again
  --baseline NAME   what the others are compared with, seed by seed: a method (each group then with that method's
                    group of the same settings), or one group by its whole name                 (fixed_sg, if there)
  --where KEY=VALUE only runs with this setting, as dataset.name=digits or method=mpd_agl; may be given again.
                    `method` is the name in the table, `code` the code's version (or its beginning)
  --allow WHAT      compare although runs differ in data, split, budget or code (several with commas)
  --title TEXT      of the page

Runs that differ in the seed alone are one group. Runs on different data, splits, budgets or versions of the code are
refused (exit code 2) unless allowed. Runs that are not finished, damaged or not numbers are listed, never averaged.
Nothing is chosen by test results.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n\n{USAGE}")

    def print_help(self, file: object = None) -> None:
        print(USAGE, end="")


def compare(words: Sequence[str]) -> int:
    """Compare the runs that `words` name. Returns the exit code."""
    options = parse(words)
    outs = [_checked(word) for word in options.out]
    allow = _allowed(options.allow)
    found = _found(options)
    runs = _chosen(found.runs, options.where)
    if not runs:
        raise UserError(_nothing(options, found))
    grouping = group_runs(runs, allow)

    from gradspike.terminal.tables import console
    from gradspike.tools.compare.report import compare as report
    from gradspike.tools.compare.table import print_comparison

    comparison = report(grouping, options.baseline, found.excluded)
    print_comparison(comparison, console())
    for path in outs:
        _write(path, comparison, options, words)
        print(f"written: {path}")
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What was typed. Raises ConfigError for what cannot be read."""
    parser = _Parser(prog="compare.py", allow_abbrev=False)
    parser.add_argument("paths", nargs="*")
    for flag in ("--sweep", "--out", "--where", "--allow"):
        parser.add_argument(flag, action="append", default=[])
    parser.add_argument("--baseline")
    parser.add_argument("--title")
    known = [flag for action in parser._actions for flag in action.option_strings]
    for word in words:
        flag = word.partition("=")[0]
        if word.startswith("-") and flag not in known:
            raise ConfigError(f"{flag}: there is no such flag.{did_you_mean(flag, known)}\n\n{USAGE}")
    options = parser.parse_args(list(words))
    if not options.paths and not options.sweep:
        raise ConfigError(f"Name at least one folder with runs, as in  gradspike compare runs\n\n{USAGE}")
    return options


def _checked(word: str) -> Path:
    """A file to write, known to be writable before anything is read."""
    path = Path(word).expanduser()
    if path.suffix not in OUT:
        allowed = ", ".join(f"{suffix} ({what})" for suffix, what in OUT.items())
        raise ConfigError(f"--out {word}: the file's ending says what to write: {allowed}")
    if path.is_dir():
        raise ConfigError(f"--out {word}: is a folder.")
    if not path.parent.is_dir():
        raise UserError(f"--out {word}: there is no folder {path.parent}")
    return path


def _allowed(words: Sequence[str]) -> frozenset[str]:
    chosen = [one for word in words for one in word.split(",") if one]
    for one in chosen:
        if one not in WHAT:
            raise ConfigError(f"--allow {one}: must be one of {', '.join(WHAT)}.{did_you_mean(one, WHAT)}")
    return frozenset(chosen)


def _found(options: argparse.Namespace) -> Gathered:
    paths = [Path(word).expanduser() for word in options.paths]
    for path in paths:
        if not path.exists():
            parent = path.parent if path.parent.is_dir() else Path()
            near = did_you_mean(path.name, [one.name for one in parent.iterdir()])
            raise UserError(f"{path}: there is no such file or folder.{near}")
    gathered = [gather(paths)] if paths else []
    if options.sweep:
        from gradspike.tools.compare.sweeps import gather_sweep

        gathered += [gather_sweep(Path(word).expanduser()) for word in options.sweep]
    return merged(gathered)


def _chosen(runs: Sequence[Run], where: Sequence[str]) -> list[Run]:
    """The runs with all of these settings. Raises ConfigError for a key that no run has."""
    chosen = list(runs)
    for word in where:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--where {word}: write KEY=VALUE, as in --where dataset.name=digits")
        values = {run.id: _setting(run, key) for run in runs}
        known = {one for run in runs for one in shaping(run)} | {"method", "code", "seed"}
        if runs and not any(values.values()):
            raise ConfigError(f"--where {word}: no run has the setting {key}.{did_you_mean(key, known)}")
        chosen = [run for run in chosen if _matches(key, values[run.id], value)]
        if runs and not chosen:
            there = ", ".join(sorted({str(found) for found in values.values() if found}))
            raise ConfigError(f"--where {word}: leaves no run. There is {key}={there}")
    return chosen


def _matches(key: str, found: str | None, wanted: str) -> bool:
    """Whether a run has a setting; a version of the code may be given by its beginning, without its first word."""
    if key == "code":
        return found is not None and any(one.startswith(wanted) for one in (found, found.partition(" ")[2]))
    return found == wanted


def _setting(run: Run, key: str) -> str | None:
    special = {"method": run.label, "code": run.code, "seed": str(run.seed)}
    if key in special:
        return special[key]
    values = shaping(run)
    return text_of(values[key]) if key in values else None


def _nothing(options: argparse.Namespace, found: Gathered) -> str:
    places = ", ".join([*options.paths, *options.sweep])
    if not found.excluded:
        return f"{places}: there are no runs here (a run is a folder with config.yaml and summary.json)."
    listed = "\n".join(f"  {one.path}: {one.reason}" for one in found.excluded[:MOST_LISTED])
    if len(found.excluded) > MOST_LISTED:
        listed += f"\n  and {len(found.excluded) - MOST_LISTED} more"
    return f"{places}: no run here can be compared:\n{listed}"


def _write(path: Path, comparison: Comparison, options: argparse.Namespace, words: Sequence[str]) -> None:
    from gradspike.runs.files import write_output
    from gradspike.tools.compare.page import render
    from gradspike.tools.compare.page_data import default_title, page_data
    from gradspike.tools.compare.table import as_csv, latex, markdown

    ending = path.suffix.lower()
    if ending == ".html":
        title = options.title or default_title([*options.paths, *options.sweep])
        made = datetime.now().astimezone().isoformat(timespec="minutes")
        text = render(comparison, page_data(comparison, title, typed_command("compare", *words), made))
    else:
        text = {".md": markdown, ".tex": latex, ".csv": as_csv}[ending](comparison)
    write_output(path, text, "--out ")
