"""The trials of a sweep: all points of a grid, seeded random draws, or empty trials for a search to fill."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.json_text import to_json
from gradspike.shown import counted
from gradspike.tools.sweep.file import SweepFile
from gradspike.tools.sweep.parameters import Parameter
from gradspike.tools.sweep.words import Words, check

MOST_TRIALS = 10_000
MOST_CHECKED = 32


@dataclass(frozen=True)
class Proposal:
    """One trial. `key` is the same on all machines and in all starts; `values` is None until a search fills it."""

    key: str
    values: dict[str, Any] | None
    set: str | None = None
    """The set of trials that counts as one (see `sets`)."""
    seed: Any = None
    """Its seed in the set."""


def proposals(file: SweepFile, words: Words, trials: int | None, seed: int) -> list[Proposal]:
    """All trials of a sweep in the order of their start. Raises ConfigError."""
    found = _points(file, words, trials, seed)
    if file.seeds is None:
        return found
    if len(found) * len(file.seeds) > MOST_TRIALS:
        raise ConfigError(
            f"{file.path}: {counted(len(found), 'set')} of {counted(len(file.seeds), 'seed')} need more than "
            f"{MOST_TRIALS:,} runs."
        )
    return [member for one in found for member in _members(one, file, words)]


def _members(one: Proposal, file: SweepFile, words: Words) -> Iterator[Proposal]:
    """A proposal for each seed of a set."""
    name = str(file.options.gradspike.average_over)
    for seed in file.seeds or []:
        if one.values is None:
            yield Proposal(f"{one.key}, {name} {seed}", None, one.key, seed)
            continue
        whole = {**one.values, name: seed}
        values = {key: whole[key] for key in file.swept}
        yield replace(_proposal(values, words), set=one.key, seed=seed)


def _points(file: SweepFile, words: Words, trials: int | None, seed: int) -> list[Proposal]:
    """One proposal for each trial, or each set of seeds."""
    method = file.options.method
    cap = file.options.run_cap
    swept = file.searched
    if method == "grid":
        if trials is not None:
            raise ConfigError(
                f"trials={trials}: a grid has one trial per point. For fewer trials, add run_cap: to {file.path}."
            )
        points = list(itertools.islice(_grid(swept), cap or MOST_TRIALS + 1))
        if len(points) > MOST_TRIALS:
            raise ConfigError(f"{file.path}: more than {MOST_TRIALS} points. Use method: random, or add run_cap:")
        return [_proposal(point, words) for point in points]
    count = trials or cap
    if count is None:
        raise ConfigError(
            f"{file.path}: method: {method} needs a number of trials. Type trials=20, or add run_cap: 20 to the file."
        )
    if count > MOST_TRIALS:
        raise ConfigError(f"trials={count}: at most {MOST_TRIALS}")
    if method == "bayes":
        return [Proposal(f"search {index}", None) for index in range(count)]
    return [_proposal(point, words) for point in _random(swept, count, seed)]


def check_all(file: SweepFile, words: Words, listed: Sequence[Proposal]) -> list[ExperimentConfig]:
    """Compose trials to find mistakes before anything starts. Returns their configurations. Raises ConfigError.

    If there are many trials, composes each value (or end of a range) once and an even selection of trials. The others
    are checked when they start.
    """
    swept = file.swept
    chosen: dict[str, dict[str, Any]] = {}
    for point in _each_value_once(swept):
        chosen.setdefault(str(point), point)
    known = [proposal.values for proposal in listed if proposal.values is not None]
    step = max(1, len(known) // MOST_CHECKED)
    for point in known[::step]:
        chosen.setdefault(str(point), point)
    return [check(words.of(point), words) for point in chosen.values()]


def _grid(swept: dict[str, Parameter]) -> Iterator[dict[str, Any]]:
    """Every combination; the first parameter of the file changes slowest."""
    axes = [parameter.grid() or [] for parameter in swept.values()]
    for values in itertools.product(*axes):
        yield dict(zip(swept, values, strict=True))


def _random(swept: dict[str, Parameter], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` different points. A larger `count` extends the same sequence."""
    random = Random(seed)
    points: dict[str, dict[str, Any]] = {}
    for _ in range(100 * count):
        point = {name: parameter.draw(random) for name, parameter in swept.items()}
        points.setdefault(str(point), point)
        if len(points) == count:
            return list(points.values())
    raise ConfigError(f"trials={count}: the parameters have only about {counted(len(points), 'combination')}.")


def _each_value_once(swept: dict[str, Parameter]) -> Iterator[dict[str, Any]]:
    examples = {name: parameter.examples() for name, parameter in swept.items()}
    for index in range(max((len(values) for values in examples.values()), default=1)):
        yield {name: values[index % len(values)] for name, values in examples.items()}


def _proposal(point: dict[str, Any], words: Words) -> Proposal:
    return Proposal(to_json(sorted(words.shaping(point))), point)
