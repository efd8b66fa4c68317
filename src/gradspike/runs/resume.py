"""The configuration of a resumed run: its own, with what may change."""

from __future__ import annotations

from typing import Any

from gradspike.config.marks import always_shown, touches
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.errors import ConfigError
from gradspike.nested import flat
from gradspike.runs.folder import RunFolder
from gradspike.touches import Touches


def resumed_config(run: RunFolder, requested: ExperimentConfig, typed: list[str]) -> ExperimentConfig:
    """The run's own configuration, with what was typed beside `resume` and may change.

    Raises ConfigError that lists what was typed and differs from the run.
    """
    saved = run.config()
    before, now = saved.plain(), requested.plain()
    marks = touches(before) | touches(now)
    free = {key for key, mark in marks.items() if mark is Touches.SHOWN}
    typed_keys = [word.partition("=")[0].lstrip("+~") for word in typed]
    differences = []
    for key in typed_keys:
        if key == "resume":
            continue
        if always_shown(key):
            _put(before, key, _get(now, key))
            continue
        ours, theirs = dict(flat({key: _get(now, key)})), dict(flat({key: _get(before, key)}))
        # A key typed by itself is judged by itself, not once more with its group.
        differing = sorted(
            inner
            for inner in ours.keys() | theirs.keys()
            if ours.get(inner) != theirs.get(inner) and inner not in free and (inner == key or inner not in typed_keys)
        )
        differences += [
            f"  {inner}: the run has {theirs.get(inner)}, the command line {ours.get(inner)}" for inner in differing
        ]
    if differences:
        raise ConfigError(
            f"{run.path}: a resumed run keeps its configuration, but these differ:\n" + "\n".join(differences) + "\n"
            f"Leave them out, or start a new run. Free to change: {', '.join(sorted(_sections(free)))}."
        )
    return validate({**before, "resume": None})


def _sections(free: set[str]) -> set[str]:
    """The keys, with those of a section that is free as a whole replaced by the section."""
    return {section if always_shown(section := key.partition(".")[0]) else key for key in free}


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value
