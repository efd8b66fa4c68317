"""Stored numbers of finished runs, small enough to keep in the repository. Imports nothing heavy.

A summary is a JSON file, one for each sweep or measuring script. `gradspike claims --store` writes those of sweeps.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError

from gradspike.config.validate import explain
from gradspike.errors import ConfigError
from gradspike.json_text import to_json
from gradspike.registry import Strict

Steps = tuple[tuple[float | None, ...], ...]
"""One row for each layer, one value for each time step; None: the network had no number there."""


class Course(Strict):
    """Means over layers during training, and standard deviations over layers, at optimiser steps `step`."""

    step: tuple[int, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]


class Record(Strict):
    """One finished run, or one repetition of a measurement."""

    seed: int
    parameters: dict[str, str | int | float | bool]
    """The swept values; their keys are those of the configuration."""
    values: dict[str, float]
    """Single numbers by name, with the units of `quantities`."""
    last: dict[str, Steps] = Field(default_factory=dict)
    """At the last validation, by quantity of the probe (see training.probe.probe)."""
    start: dict[str, Steps] = Field(default_factory=dict)
    """The same before the first training step."""
    course: dict[str, Course] = Field(default_factory=dict)
    """theta and kappa over training."""
    grids: dict[str, Steps] = Field(default_factory=dict)
    """Fields of two dimensions, by the names of `pictures`: rows of values. None: not finite."""


class Summary(Strict):
    """All runs of one sweep."""

    question: str
    command: str
    """The command that makes the runs; <...> stands for a place on the reader's disk."""
    setting: dict[str, str | int | float | bool | None]
    """Data, network and budget that all runs share; keys of the configuration, and `test samples`."""
    made_with: dict[str, str]
    """Processor and versions, and the digest of the code."""
    layers: tuple[str, ...] = ()
    """Names of the spiking layers, in the network's order; none if the networks differ, and then no run has `last`."""
    planned: int
    """The number of trials of the sweep; `runs` has the finished ones."""
    runs: tuple[Record, ...]


def read_summary(path: Path) -> Summary:
    """Read a stored summary. Raises ConfigError if it is damaged or in another format."""
    try:
        return Summary.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        what = f": {explain(error.errors()[0])}" if isinstance(error, ValidationError) else ""
        raise ConfigError(f"{path}: is not a summary of runs{what}. Store it again with --store.") from error


def summary_text(summary: Summary) -> str:
    """The text of a summary's file: a line for each run, so that changes of a run are seen as such."""
    head = summary.model_dump(mode="json", exclude={"runs"})
    lines = [f" {to_json(key)}: {to_json(value)}," for key, value in head.items()]
    runs = ",\n".join(f"  {to_json(run.model_dump(mode='json', exclude_defaults=True))}" for run in summary.runs)
    return "\n".join(["{", *lines, ' "runs": [', runs, " ]", "}"]) + "\n"
