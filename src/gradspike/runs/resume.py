"""The configuration of a resumed run: its own, with what may change."""

from __future__ import annotations

from typing import Any

from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.errors import ConfigError
from gradspike.nested import flat
from gradspike.runs.folder import RunFolder

# What a resumed run may change: where things lie and what is shown, nothing that shapes the result.
FREE_ON_RESUME = ("resume", "data_dir", "logger", "trainer.progress", "checkpoint", "dataset.workers")


def resumed_config(run: RunFolder, requested: ExperimentConfig, typed: list[str]) -> ExperimentConfig:
    """The run's own configuration, with what was typed beside `resume` and may change.

    Raises ConfigError that lists what was typed and differs from the run.
    """
    saved = run.config()
    before, now = saved.plain(), requested.plain()
    typed_keys = [word.partition("=")[0].lstrip("+~") for word in typed]
    differences = []
    for key in typed_keys:
        if _free(key):
            _put(before, key, _get(now, key))
            continue
        ours, theirs = dict(flat({key: _get(now, key)})), dict(flat({key: _get(before, key)}))
        # A key typed by itself is judged by itself, not once more with its group.
        differing = sorted(
            inner
            for inner in ours.keys() | theirs.keys()
            if ours.get(inner) != theirs.get(inner) and not _free(inner) and (inner == key or inner not in typed_keys)
        )
        differences += [
            f"  {inner}: the run has {theirs.get(inner)}, the command line {ours.get(inner)}" for inner in differing
        ]
    if differences:
        raise ConfigError(
            f"{run.path}: a resumed run keeps its configuration, but these differ:\n" + "\n".join(differences) + "\n"
            f"Leave them out, or start a new run. Free to change: {', '.join(FREE_ON_RESUME[1:])}."
        )
    return validate({**before, "resume": None})


def _free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_ON_RESUME)


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value
