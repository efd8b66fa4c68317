"""Groups of runs, and runs that must not be compared.

A group is a method (or the ReLU twin) with one setting of every swept key; its runs differ only in the seed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradspike.config.marks import touches
from gradspike.errors import ConfigError
from gradspike.json_text import to_json
from gradspike.nested import flat
from gradspike.runs.environment import start_time
from gradspike.shown import counted, listed
from gradspike.tools.compare.run import Excluded, Run
from gradspike.touches import SHAPING, Touches

# The ANN twin has neither neurons nor a method.
NOT_IN_ANN = ("method", "neuron")

REFUSED = {Touches.DATA: "data", Touches.FORM: "data", Touches.SPLIT: "split", Touches.BUDGET: "budget"}
"""Keys in which runs must not differ, and the value of --allow that permits it."""

WHAT = {
    "data": "data sets or preparation of samples",
    "split": "splits into training, validation and test samples",
    "budget": "training budgets",
    "code": "versions of the code",
}

SHORT = {"time_steps": "T", "trainer.max_epochs": "epochs", "model.name": "model", "dataset.name": "dataset"}
MISSING = "not set"


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed, sorted by seed."""

    name: str
    label: str
    settings: dict[str, Any]
    """The swept keys and their values."""
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Grouping:
    """All groups, with notes."""

    groups: tuple[Group, ...]
    swept: tuple[str, ...]
    """Keys that differ within a method."""
    short: dict[str, str]
    """Short names of the swept keys, for the names of groups."""
    excluded: tuple[Excluded, ...]
    notes: tuple[str, ...]


def group_runs(runs: Sequence[Run], allow: frozenset[str] = frozenset()) -> Grouping:
    """Group runs. Raises ConfigError if they differ in keys that must not be compared, unless `allow` permits it."""
    settings = {run.id: shaping(run) for run in runs}
    refused = kinds(runs)
    differing = _differing(settings)
    refuse(runs, settings, {key: refused[key] for key in differing if key in refused}, allow)
    swept = [key for key in differing if _varies_within(runs, settings, key) or key in refused]
    short = _short_names(swept)
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        chosen = {key: settings[run.id][key] for key in swept if key in settings[run.id]}
        found.setdefault((run.label, to_json(chosen, sort_keys=True)), []).append(run)
    excluded: list[Excluded] = []
    groups = []
    named = _named(runs, settings, swept)
    for (label, chosen_text), members in found.items():
        chosen = json.loads(chosen_text)
        shown = {key: chosen[key] for key in swept if key in chosen and key in named[label]}
        name = ", ".join([label, *(f"{short[key]}={text_of(value)}" for key, value in shown.items())])
        groups.append(Group(name, label, chosen, tuple(_one_per_seed(name, members, excluded))))
    return Grouping(
        groups=tuple(_ordered(groups, swept)),
        swept=tuple(swept),
        short=short,
        excluded=tuple(excluded),
        notes=tuple(_notes(runs, settings, [key for key in differing if key not in swept], allow)),
    )


def shaping(run: Run) -> dict[str, Any]:
    """The dotted keys of the configuration that affect a run's result, including the options of the method."""
    marks = touches(run.config)
    dropped = NOT_IN_ANN if run.is_ann else ()
    return {
        key: value
        for key, value in flat(run.config)
        if marks[key] in SHAPING and not key.startswith("_") and key.partition(".")[0] not in dropped
    }


def kinds(runs: Sequence[Run]) -> dict[str, str]:
    """data, split or budget for the keys in which runs must not differ unless allowed."""
    marks = {key: mark for run in runs for key, mark in touches(run.config).items()}
    found = {key: REFUSED[mark] for key, mark in marks.items() if mark in REFUSED}
    return {key: kind for key, kind in found.items() if kind != "data" or key.startswith("dataset.")}


def refuse(
    runs: Sequence[Run], settings: Mapping[str, Mapping[str, Any]], found: Mapping[str, str], allow: frozenset[str]
) -> None:
    """Raise ConfigError if runs differ in something not allowed, with the keys, the runs and what to do.

    found: the keys in which they differ but must not, and their kinds.
    """
    problems = []
    differing = []
    for key, kind in found.items():
        if kind not in allow:
            values = {run.id: _text(settings[run.id], key) for run in runs}
            problems.append(f"  {WHAT[kind]}: {key} is {_who(runs, values)}")
            differing.append(kind)
    versions = {run.id: run.code or "not recorded" for run in runs}
    if "code" not in allow and len(set(versions.values())) > 1:
        problems.append(f"  {WHAT['code']}: {_who(runs, versions)}")
        differing.append("code")
    for module in sorted({name for run in runs for name in run.modules}):
        users = [run for run in runs if module in run.modules]
        versions = {run.id: run.modules[module] for run in users}
        if "code" not in allow and len(set(versions.values())) > 1:
            problems.append(f"  {WHAT['code']}: {module} is {_who(users, versions)}")
            differing.append("code")
    if problems:
        chosen = ",".join(dict.fromkeys(differing))
        raise ConfigError(
            "These runs cannot be averaged or compared; they differ in\n" + "\n".join(problems) + "\n"
            f"To compare them anyway:  --allow {chosen}  (different data, splits and budgets then form separate "
            "groups).\nTo select some of them:  --where KEY=VALUE, e.g.  --where dataset.name=digits  "
            "or  --where code=<its beginning>"
        )


def _who(runs: Sequence[Run], values: Mapping[str, str]) -> str:
    """`64 in 17 runs, 32 in 1 run (runs/x)`, with the names of the rarer ones."""
    names: dict[str, list[str]] = {}
    for run in runs:
        names.setdefault(values[run.id], []).append(run.path)
    ordered = sorted(names.items(), key=lambda one: -len(one[1]))
    parts = []
    for index, (value, paths) in enumerate(ordered):
        named = f" ({', '.join(paths[:2])}{', ...' if len(paths) > 2 else ''})" if index else ""
        parts.append(f"{value} in {counted(len(paths), 'run')}{named}")
    return listed(parts)


def _differing(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Keys with several values, except those that follow from the data set, such as its image size."""
    every = settings.values()
    keys = sorted({key for one in every for key in one})
    found = [key for key in keys if len({_text(one, key) for one in every}) > 1]
    if "dataset.name" not in found:
        return found

    def follows(key: str) -> bool:
        by_name: dict[str, set[str]] = {}
        for one in every:
            by_name.setdefault(_text(one, "dataset.name"), set()).add(_text(one, key))
        return all(len(values) == 1 for values in by_name.values())

    return [
        key for key in found if key == "dataset.name" or not (key.startswith(("dataset.", "model.")) and follows(key))
    ]


def _text(values: Mapping[str, Any], key: str) -> str:
    return text_of(values[key]) if key in values else MISSING


def text_of(value: Any) -> str:
    """A value as typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(text_of(one) for one in value) + "]"
    return "null" if value is None else str(value)


def _varies_within(runs: Sequence[Run], settings: Mapping[str, Mapping[str, Any]], key: str) -> bool:
    """Whether a key has several values within a method, rather than one per method."""
    found: dict[str, set[str]] = {}
    for run in runs:
        if key in settings[run.id]:
            found.setdefault(run.label, set()).add(_text(settings[run.id], key))
    return any(len(values) > 1 for values in found.values())


def _named(runs: Sequence[Run], settings: Mapping[str, Mapping[str, Any]], swept: Sequence[str]) -> dict[str, set[str]]:
    """The swept keys in the names of each method's groups: an option of the method only if it varies there."""
    found: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        of_label = found.setdefault(run.label, {key: set() for key in swept})
        for key, values in of_label.items():
            values.add(_text(settings[run.id], key))
    return {
        label: {key for key, values in of_label.items() if len(values) > 1 or not key.startswith("method.")}
        for label, of_label in found.items()
    }


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, or the whole key if two share it."""
    last = {key: SHORT.get(key, key.rpartition(".")[2]) for key in keys}
    counts = Counter(last.values())
    return {key: name if counts[name] == 1 else key for key, name in last.items()}


def _one_per_seed(name: str, members: Sequence[Run], excluded: list[Excluded]) -> list[Run]:
    """The newest run of each seed. Lists older duplicates and flags differing results."""
    kept: dict[int, Run] = {}
    for run in sorted(members, key=lambda run: (start_time(run.sessions), run.path), reverse=True):
        first = kept.setdefault(run.seed, run)
        if first is not run:
            same = first.final("last") == run.final("last")
            outcome = "same accuracy" if same else "DIFFERENT accuracy: the runs did not reproduce each other"
            excluded.append(Excluded(run.path, f"{first.path} is a newer run of {name}, seed {run.seed} ({outcome})"))
    return [kept[seed] for seed in sorted(kept)]


def _ordered(groups: list[Group], swept: Sequence[str]) -> list[Group]:
    """Sorted by mean accuracy, best first; with swept keys, method by method and along the sweep."""

    values: dict[str, list[float]] = {}
    for group in groups:
        values.setdefault(group.label, []).extend(run.final("last") or 0.0 for run in group.runs)
    accuracy = {label: sum(of_label) / len(of_label) for label, of_label in values.items()}

    def place(group: Group) -> tuple[Any, ...]:
        along = tuple(sortable(group.settings.get(key)) for key in swept)
        return (-accuracy[group.label], group.label, along)

    return sorted(groups, key=place)


def sortable(value: Any) -> tuple[int, float, str]:
    """A key to sort values of a setting by: numbers by size, then text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, text_of(value))


def _notes(
    runs: Sequence[Run],
    settings: Mapping[str, Mapping[str, Any]],
    with_method: Sequence[str],
    allow: frozenset[str],
) -> list[str]:
    notes = []
    noted = [key for key in with_method if not key.startswith(("method.", "model.activation"))]
    for key in noted:
        by_label = {run.label: _text(settings[run.id], key) for run in runs if key in settings[run.id]}
        if len(set(by_label.values())) > 1:
            each = ", ".join(f"{value} for {label}" for label, value in sorted(by_label.items()))
            notes.append(f"Methods also differ in {key}: {each}.")
    versions = {run.code for run in runs}
    if "code" in allow and len(versions) > 1:
        notes.append(f"Runs of {len(versions)} versions of the code are averaged and compared, as allowed.")
    if None in versions:
        count = sum(run.code is None for run in runs)
        notes.append(f"The version of the code is not recorded for {count} of {counted(len(runs), 'run')}.")
    if any("uncommitted" in (run.commit or "") for run in runs):
        notes.append("Some runs used uncommitted changes: git alone cannot restore their code.")
    return notes
