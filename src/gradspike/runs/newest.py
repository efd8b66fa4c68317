"""The run that `resume=auto` continues. Imports nothing heavy."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
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

log = logging.getLogger("gradspike")

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
    every = [RunFolder(folder) for folder in _folders(Path(config.runs_dir))]
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


def _folders(runs: Path) -> list[Path]:
    """The run folders in `runs`. Warns of those that may not be read, such as another person's."""
    try:
        names = os.listdir(runs)
    except FileNotFoundError:
        return []
    found = []
    for folder in (runs / name for name in sorted(names)):
        try:
            os.stat(folder / "config.yaml")
        except PermissionError:
            log.warning("resume=auto: %s cannot be read (Permission denied), so it is not continued.", shown(folder))
        except OSError:
            continue  # no run, or a link to one that is gone
        else:
            found.append(folder)
    return found


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
    """Whether a run's file has this configuration. Warns of a file that cannot be read."""
    try:
        text = "\n" + file.read_text(encoding="utf-8")
        if "\nseed: " in text and f"\nseed: {plain['seed']}\n" not in text:
            return False  # without the time that YAML takes
        theirs = fast_yaml(text) if "\nseed: " in text else None
    except (OSError, ValueError, yaml.YAMLError):
        theirs = None
    if not isinstance(theirs, dict):
        log.warning("resume=auto: %s is damaged or cannot be read, so this run is not continued.", shown(file))
        return False
    ours_flat, theirs_flat = dict(flat(plain)), dict(flat(theirs))
    marks = touches(plain) | touches(theirs)
    return all(
        marks[key] in FREE or (key in ours_flat and key in theirs_flat and ours_flat[key] == theirs_flat[key])
        for key in ours_flat.keys() | theirs_flat.keys()
    )
