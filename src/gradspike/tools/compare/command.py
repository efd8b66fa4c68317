"""`gradspike compare`: its arguments and steps. Imports nothing heavy before the arguments are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gradspike.cli.arguments import Command, checked_file
from gradspike.errors import ConfigError, UserError, did_you_mean, unknown_path
from gradspike.shown import expanded
from gradspike.started import typed_command
from gradspike.tools.compare.columns import KEYS, chosen_columns
from gradspike.tools.compare.gather import Gathered, gather, merged
from gradspike.tools.compare.groups import WHAT, group_runs, shaping, text_of
from gradspike.tools.compare.run import Run

if TYPE_CHECKING:
    from gradspike.tools.compare.report import Comparison

MOST_LISTED = 20
OUT = {".html": "the page", ".md": "Markdown", ".tex": "LaTeX", ".csv": "CSV"}

USAGE = f"""\
Compare trained runs: a table in the terminal and, with --out, one page that works offline.

  gradspike compare runs/methods --out report.html
  gradspike compare --sweep runs/sweeps/quick --baseline mpd_agl --out report.html --out table.tex

Arguments:
  FOLDER ...         folders with runs at any depth; also W&B's offline files (*.wandb)
  --sweep DIR        a sweep folder: the runs of its trials, and the state of unfinished ones; repeatable
  --out FILE         .html the page, .md .tex .csv the main table; repeatable
  --baseline NAME    compare, seed by seed, with this method or this value of a setting, e.g. mpd_agl or
                     method.width=0.5: each group with the one that is equal in all other settings; or with one group
                     by its full name. A second one, of another setting, is the reference of the differences of
                     differences                                                                (fixed_sg, if present)
  --columns A,B      the table's columns and their order, from {", ".join(KEYS[:7])},
                     {", ".join(KEYS[7:14])}, and, shown only here, NeuroBench's metrics:
                     {", ".join(KEYS[14:])}
  --where KEY=VALUE  only runs with this setting, e.g. dataset.name=digits or method=mpd_agl; repeatable. `method` is
                     the name in the table, `code` the code's version or its beginning
  --allow WHAT       compare runs that differ in data, split, budget or code (separate several by commas)
  --title TEXT       the page's title                                        (the question of the sweep's file, if any)

Runs that differ only in the seed form a group. Runs with different data, splits, budgets or versions of the code are
refused (exit code 2) unless allowed. Unfinished and damaged runs, and runs with NaN, are listed but never averaged.
Nothing is selected by test results.
"""

COMMAND = Command(
    "compare",
    USAGE,
    valued=("--sweep", "--out", "--where", "--allow", "--baseline", "--columns", "--title"),
    words=True,
)


REPEATABLE = ("sweep", "out", "where", "allow", "baseline", "columns")


@dataclass(frozen=True)
class Options:
    """The typed options."""

    paths: list[str]
    sweep: list[str]
    out: list[str]
    where: list[str]
    allow: list[str]
    baseline: list[str]
    columns: list[str]
    title: str | None


def compare(words: Sequence[str]) -> int:
    """Compare runs and print or write the result. Returns the exit code."""
    options = parse(words)
    outs = [checked_file("--out ", word, OUT) for word in options.out]
    allow = _allowed(options.allow)
    columns = chosen_columns(options.columns)
    found = _found(options)
    runs = _chosen(found.runs, options.where)
    if not runs:
        raise UserError(_nothing(options, found))
    grouping = group_runs(runs, allow)

    from gradspike.terminal.tables import console
    from gradspike.tools.compare.report import compare as report
    from gradspike.tools.compare.table import print_comparison

    comparison = report(grouping, options.baseline, found.excluded)
    print_comparison(comparison, console(), columns)
    for path in outs:
        _write(path, comparison, columns, options, words)
        print(f"written: {path}")
    return 0


def parse(words: Sequence[str]) -> Options:
    """Parse the command line. Raises ConfigError."""
    typed = COMMAND.parse(words)
    repeatable = {name: typed.flags.get(f"--{name}", []) for name in REPEATABLE}
    options = Options(paths=typed.words, **repeatable, title=typed.last("--title"))
    if not options.paths and not options.sweep:
        raise COMMAND.error("Name at least one folder with runs, as in  gradspike compare runs")
    return options


def _allowed(words: Sequence[str]) -> frozenset[str]:
    chosen = [one for word in words for one in word.split(",") if one]
    for one in chosen:
        if one not in WHAT:
            raise ConfigError(f"--allow {one}: must be one of {', '.join(WHAT)}.{did_you_mean(one, WHAT)}")
    return frozenset(chosen)


def _found(options: Options) -> Gathered:
    paths = [expanded(word) for word in options.paths]
    for path in paths:
        if not path.exists():
            raise UserError(unknown_path("file or folder", path))
    gathered = [gather(paths)] if paths else []
    if options.sweep:
        from gradspike.tools.compare.sweeps import gather_sweep

        gathered += [gather_sweep(expanded(word)) for word in options.sweep]
    return merged(gathered)


def _chosen(runs: Sequence[Run], where: Sequence[str]) -> list[Run]:
    """The runs with all of these settings. Raises ConfigError for an unknown key."""
    chosen = list(runs)
    for word in where:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--where {word}: write KEY=VALUE, as in --where dataset.name=digits")
        values = {run.id: _setting(run, key) for run in runs}
        known = {one for run in runs for one in shaping(run)} | {"method", "code", "seed"}
        if runs and not any(values.values()):
            raise ConfigError(f"--where: unknown setting '{key}'.{did_you_mean(key, known)}")
        chosen = [run for run in chosen if _matches(key, values[run.id], value)]
        if runs and not chosen:
            there = ", ".join(sorted({str(found) for found in values.values() if found}))
            raise ConfigError(f"--where {word}: no run matches. The runs have {key}={there}")
    return chosen


def _matches(key: str, found: str | None, wanted: str) -> bool:
    """Whether a setting matches. A version of the code may be given by its beginning, without the first word."""
    if key == "code":
        return found is not None and any(one.startswith(wanted) for one in (found, found.partition(" ")[2]))
    return found == wanted


def _setting(run: Run, key: str) -> str | None:
    special = {"method": run.label, "code": run.code, "seed": str(run.seed)}
    if key in special:
        return special[key]
    values = shaping(run)
    return text_of(values[key]) if key in values else None


def _nothing(options: Options, found: Gathered) -> str:
    places = ", ".join([*options.paths, *options.sweep])
    if not found.excluded:
        return f"{places}: found no runs (a run is a folder with config.yaml and summary.json)."
    listed = "\n".join(f"  {one.path}: {one.reason}" for one in found.excluded[:MOST_LISTED])
    if len(found.excluded) > MOST_LISTED:
        listed += f"\n  and {len(found.excluded) - MOST_LISTED} more"
    return f"{places}: none of the runs can be compared:\n{listed}"


def _write(
    path: Path, comparison: Comparison, columns: Sequence[str] | None, options: Options, words: Sequence[str]
) -> None:
    from gradspike.runs.files import write_output
    from gradspike.tools.compare.latex import latex
    from gradspike.tools.compare.page import render
    from gradspike.tools.compare.page_data import default_title, page_data
    from gradspike.tools.compare.table import as_csv, markdown

    ending = path.suffix.lower()
    if ending == ".html":
        title = options.title or _question(options) or default_title([*options.paths, *options.sweep])
        made = datetime.now().astimezone().isoformat(timespec="minutes")
        data = page_data(comparison, title, typed_command("compare", *words), made, columns)
        text = render(comparison, data, columns)
    elif ending == ".csv":
        text = as_csv(comparison)
    else:
        text = {".md": markdown, ".tex": latex}[ending](comparison, columns)
    write_output(path, text, "--out ")


def _question(options: Options) -> str | None:
    """The question of the only sweep."""
    if len(options.sweep) != 1 or options.paths:
        return None
    from gradspike.tools.compare.sweeps import question

    return question(expanded(options.sweep[0]))
