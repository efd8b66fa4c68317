"""The run that `resume=auto` continues. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from gradspike.config.marks import touches
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.nested import flat
from gradspike.runs.environment import start_time
from gradspike.runs.files import fast_yaml
from gradspike.runs.folder import RunFolder
from gradspike.runs.identity import has_id
from gradspike.shown import listed, shown
from gradspike.touches import Touches

AUTO = "auto"
FREE = (Touches.SHOWN, Touches.START)
"""What may differ between a run and the configuration that continues it."""


def newest_run(config: ExperimentConfig) -> RunFolder | None:
    """The newest unfinished run of this configuration in `runs_dir`, else its newest finished one, else None.

    Runs are ordered by their recorded start, and those that never started by their folders' names. Raises ConfigError
    if the unfinished run has a copy, of which either may be the one to continue.
    """
    plain = config.plain()
    newest = None
    with suppress(FileNotFoundError):
        os.listdir(config.runs_dir)  # raises PermissionError, for which `glob` finds nothing
    every = [RunFolder(file.parent) for file in Path(config.runs_dir).glob("*/config.yaml")]
    starts = {run.path: start_time(run.sessions()) for run in every}
    for run in sorted(every, key=lambda run: (starts[run.path], run.path.name), reverse=True):
        # The state first: reading it is fast, and of the finished runs only the newest of this configuration counts.
        finished = run.state() == "finished"
        if (newest is None or not finished) and _same(plain, run.path / "config.yaml"):
            if not finished:
                _refuse_copies(run, [other for other in every if starts[other.path] == starts[run.path]])
                return run
            newest = run
    return newest


def _refuse_copies(run: RunFolder, started_then: Sequence[RunFolder]) -> None:
    """Raise ConfigError if another folder among these has the id of `run`. A link to `run` is no copy."""
    place = run.path.resolve()
    copies = [one.path for one in started_then if one.path.resolve() != place and has_id(one.path, run.id)]
    if copies:
        raise ConfigError(
            f"resume=auto: {listed(map(shown, sorted([run.path, *copies])))} are copies of one run. Name the one to "
            "continue: resume=<its path>."
        )


def _same(plain: dict[str, Any], file: Path) -> bool:
    """Whether a run's file has this configuration; no for a file that cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
        if f"\nseed: {plain['seed']}\n" not in f"\n{text}":
            return False  # without the time that YAML takes
        theirs = fast_yaml(text)
    except (OSError, ValueError, yaml.YAMLError):
        return False
    if not isinstance(theirs, dict):
        return False
    ours_flat, theirs_flat = dict(flat(plain)), dict(flat(theirs))
    marks = touches(plain) | touches(theirs)
    return all(
        marks[key] in FREE or (key in ours_flat and key in theirs_flat and ours_flat[key] == theirs_flat[key])
        for key in ours_flat.keys() | theirs_flat.keys()
    )
