"""Everything a comparison shows, as plain data: the table, the tests, the figures, the runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from gradspike.config.recipes import deviations, published_for
from gradspike.config.schema import ExperimentConfig, PublishedConfig
from gradspike.config.validate import validate
from gradspike.cost.energy import Energy, energy_of
from gradspike.errors import ConfigError, UserError, did_you_mean
from gradspike.nested import flat
from gradspike.tools.compare import series
from gradspike.tools.compare.groups import Group, Grouping, text_of
from gradspike.tools.compare.run import Excluded, Run, number
from gradspike.tools.compare.statistics import ALPHA, Paired, Sample, describe, holm, paired, verdict

DEFAULT_BASELINE = "fixed_sg"


@dataclass(frozen=True)
class Row:
    """One group's line of the main table."""

    group: Group
    final: Sample
    """Test accuracy after the last epoch, as a fraction."""
    best: Sample | None
    """Test accuracy of the epoch that was best by validation; None without a validation split."""
    firing_rate: Sample | None
    gradient: Sample | None
    """Share of neurons with |u - theta| < kappa / 2 at the last validation, mean over layers and steps."""
    gradient_spread: Sample | None
    """Its standard deviation over layers."""
    energy: Sample | None
    """Nanojoules an inference."""
    energies: tuple[Energy, ...]
    """Of each run that has them."""
    seconds: Sample | None
    memory: Sample | None
    """Peak MiB while training."""
    memory_of: str
    parameters: int | None
    published: PublishedConfig | None
    against: Group | None
    """What it is compared with; None for a baseline itself and where there is none."""
    paired: Paired | None
    corrected_p: float | None


@dataclass(frozen=True)
class Comparison:
    """All rows, and what has to be said about them."""

    rows: tuple[Row, ...]
    grouping: Grouping
    baseline: str | None
    verdict: str | None
    notes: tuple[str, ...]
    excluded: tuple[Excluded, ...]


def compare(grouping: Grouping, baseline: str | None, excluded: Sequence[Excluded]) -> Comparison:
    """Statistics of every group, and of its differences to the baseline.

    `baseline` is a group's name, or a method's: then each group is compared with that method's group of the same swept
    settings. None: fixed_sg, where it is there. Raises ConfigError for one that is not there.
    """
    chosen, against = baselines(grouping, baseline)
    pairs = {
        name: paired(_accuracies(group), _accuracies(other))
        for group in grouping.groups
        for name in [group.name]
        if (other := against.get(name)) is not None
    }
    tested = {name: pair for name, pair in pairs.items() if pair is not None}
    corrected = dict(zip(tested, holm([pair.p for pair in tested.values()]), strict=True))
    rows = tuple(
        _row(group, against.get(group.name), pairs.get(group.name), corrected.get(group.name))
        for group in grouping.groups
    )
    return Comparison(
        rows=rows,
        grouping=grouping,
        baseline=chosen,
        verdict=verdict(list(tested.values()), len(tested)) if chosen is not None and against else None,
        notes=(*grouping.notes, *_notes(rows)),
        excluded=(*excluded, *grouping.excluded),
    )


def baselines(grouping: Grouping, baseline: str | None) -> tuple[str | None, dict[str, Group]]:
    """The baseline's name, and what each group is compared with, by the group's name."""
    names = [group.name for group in grouping.groups]
    labels = list(dict.fromkeys(group.label for group in grouping.groups))
    if baseline is None:
        if DEFAULT_BASELINE not in labels:
            return None, {}
        baseline = DEFAULT_BASELINE
    if baseline in names and baseline not in labels:
        (one,) = (group for group in grouping.groups if group.name == baseline)
        return baseline, {group.name: one for group in grouping.groups if group is not one}
    if baseline not in labels:
        raise ConfigError(
            f"--baseline {baseline}: there is no such method or group.{did_you_mean(baseline, [*labels, *names])} "
            f"There are: {', '.join(dict.fromkeys([*labels, *names]))}"
        )
    found: dict[str, Group] = {}
    for group in grouping.groups:
        partners = [one for one in grouping.groups if one.label == baseline and _same_place(group, one)]
        if group.label != baseline and len(partners) == 1:
            found[group.name] = partners[0]
    return baseline, found


def _same_place(group: Group, other: Group) -> bool:
    """Whether two groups have the same swept settings, a method's own options aside."""
    ours, theirs = (
        {key: value for key, value in one.settings.items() if not key.startswith(("method.", "neuron."))}
        for one in (group, other)
    )
    return ours == theirs


def _accuracies(group: Group) -> dict[int, float]:
    found = {run.seed: run.final("last") for run in group.runs}
    return {seed: value for seed, value in found.items() if value is not None}


def _row(group: Group, against: Group | None, pair: Paired | None, corrected_p: float | None) -> Row:
    runs = group.runs
    energies = [energy_of(run.layers["last"], run.is_ann) for run in runs if run.layers]
    memory = [series.peak_memory(run) for run in runs]
    kinds = [what for value, what in memory if value is not None]
    parameters = {run.summary.get("parameters") for run in runs}
    final = _sample(runs, lambda run: run.final("last"))
    assert final is not None
    return Row(
        group=group,
        final=final,
        best=_sample(runs, lambda run: run.final("best")) if all(run.validates for run in runs) else None,
        firing_rate=_sample(runs, lambda run: run.final("last", "firing_rate")),
        gradient=_sample(runs, lambda run: number(run.validation.get("probe_val/mean/gradient_available"))),
        gradient_spread=_sample(
            runs, lambda run: number(run.validation.get("probe_val/spread_layers/gradient_available"))
        ),
        energy=describe([one.nanojoules for one in energies]) if energies else None,
        energies=tuple(energies),
        seconds=_sample(runs, series.seconds),
        memory=_sample(runs, lambda run: series.peak_memory(run)[0]),
        memory_of=" and ".join(sorted(set(kinds))) or "process",
        parameters=int(next(iter(parameters)) or 0) if len(parameters) == 1 else None,
        published=_published(runs[0]),
        against=against,
        paired=pair,
        corrected_p=corrected_p,
    )


def _sample(runs: Sequence[Run], quantity: Callable[[Run], float | None]) -> Sample | None:
    values = [value for run in runs if (value := quantity(run)) is not None]
    return describe(values) if values else None


def _validated(run: Run) -> ExperimentConfig | None:
    """The run's configuration as a checked one; None for one of an older format or with a part that is not at hand."""
    try:
        return validate({key: value for key, value in run.config.items() if not key.startswith("_")})
    except (UserError, ImportError):
        return None


def _published(run: Run) -> PublishedConfig | None:
    config = _validated(run)
    return None if config is None else published_for(config)


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    machines = {
        (session.get("host"), session.get("processor"))
        for row in rows
        for run in row.group.runs
        for session in run.sessions[:1]
    }
    if len(machines) > 1:
        notes.append(f"Runs come from {len(machines)} machines: their times and memory are not comparable.")
    counts = {row.final.n for row in rows}
    if len(counts) > 1:
        notes.append("Groups have different numbers of seeds; differences use the seeds that both have.")
    if any(row.best is None for row in rows):
        notes.append("Runs without a validation split have no epoch chosen by it: only the last one counts for them.")
    if any(number(run.config.get("trainer", {}).get("ema")) is not None for row in rows for run in row.group.runs):
        notes.append("Some runs are evaluated with the moving average of their weights (trainer.ema).")
    if max(counts) < 8:
        notes.append(
            "Bootstrap intervals of fewer than about eight seeds are too narrow; the page (where you point) and the "
            "CSV have Student's beside them."
        )
    return notes


def page_data(comparison: Comparison, title: str, command: str, made: str) -> dict[str, Any]:
    """All that the HTML page draws."""
    rows = comparison.rows
    groups = [row.group for row in rows]
    index = {group.name: place for place, group in enumerate(groups)}
    every_run = [run for group in groups for run in group.runs]
    common, own = _shared_config(every_run)
    return {
        "title": title,
        "command": command,
        "made": made,
        "alpha": ALPHA,
        "baseline": comparison.baseline,
        "verdict": comparison.verdict,
        "notes": list(comparison.notes),
        "groups": [_group_data(row) for row in rows],
        "paired": [
            {
                "group": index[row.group.name],
                "against": index[row.against.name],
                "seeds": list(row.paired.seeds),
                "differences": [_six(value) for value in row.paired.differences],
                "sample": _sample_data(row.paired.sample),
                "p": _six(row.paired.p),
                "corrected": _six(row.corrected_p),
            }
            for row in rows
            if row.paired is not None and row.against is not None
        ],
        "curves": _each(series.CURVES, groups, series.curve),
        "heat": _each(series.HEATS, groups, series.heat),
        "paths": _each(series.PATHS, groups, series.path_of),
        "classes": {str(place): found for place, group in enumerate(groups) if (found := series.classes(group))},
        "energy": {str(place): _energy_data(row.energies) for place, row in enumerate(rows) if row.energies},
        "sweeps": _sweeps(comparison),
        "published": published_rows(rows),
        "config": yaml.safe_dump(common, sort_keys=False),
        "runs": [
            {
                "group": index[group.name],
                "seed": run.seed,
                "path": run.path,
                "final": _six(run.final("last")),
                "best": _six(run.final("best")) if run.validates else None,
                "started": run.started,
                "command": shlex.join(run.command),
                "commit": run.commit,
                "code": run.code,
                "host": run.sessions[0].get("host") if run.sessions else None,
                "versions": run.sessions[0].get("versions") if run.sessions else None,
                "config": {key: text_of(value) for key, value in own[run.id].items()},
            }
            for group in groups
            for run in group.runs
        ],
        "excluded": [asdict(one) for one in comparison.excluded],
    }


def _each(
    quantities: Sequence[str], groups: Sequence[Group], make: Callable[[Group, str], dict[str, Any] | None]
) -> dict[str, dict[str, Any]]:
    """{quantity: {place of the group: what `make` gives}}, without what is not there."""
    found = {
        quantity: {
            str(place): made for place, group in enumerate(groups) if (made := make(group, quantity)) is not None
        }
        for quantity in quantities
    }
    return {quantity: values for quantity, values in found.items() if values}


_six = series.rounded


def _sample_data(sample: Sample | None) -> dict[str, Any] | None:
    if sample is None:
        return None
    return {key: _six(value) if isinstance(value, float) else value for key, value in asdict(sample).items()}


def _group_data(row: Row) -> dict[str, Any]:
    group = row.group
    return {
        "name": group.name,
        "label": group.label,
        "ann": group.runs[0].is_ann,
        "settings": {key: text_of(value) for key, value in group.settings.items()},
        "seeds": [run.seed for run in group.runs],
        "values": [_six(run.final("last")) for run in group.runs],
        "final": _sample_data(row.final),
        "best": _sample_data(row.best),
        "firing": _sample_data(row.firing_rate),
        "gradient": _sample_data(row.gradient),
        "energy": _sample_data(row.energy),
        "seconds": _sample_data(row.seconds),
        "memory": _sample_data(row.memory),
        "memory_of": row.memory_of,
        "parameters": row.parameters,
        "macs": row.energies[0].macs if row.energies else None,
        "published": None if row.published is None else [row.published.accuracy, row.published.spread],
    }


def _energy_data(energies: Sequence[Energy]) -> dict[str, Any]:
    """Layer by layer, means over seeds."""
    layers = []
    for place, layer in enumerate(energies[0].layers):
        same = [one.layers[place] for one in energies if len(one.layers) == len(energies[0].layers)]
        activities = [one.activity for one in same if one.activity is not None]
        layers.append(
            {
                "name": layer.name,
                "macs": layer.macs,
                "accumulates": all(one.accumulates for one in same),
                "operations": _six(sum(one.operations for one in same) / len(same)),
                "picojoules": _six(sum(one.picojoules for one in same) / len(same)),
                "activity": _six(sum(activities) / len(activities)) if activities else None,
            }
        )
    count = len(energies)
    return {
        "layers": layers,
        "ac": _six(sum(one.accumulates for one in energies) / count),
        "mac": _six(sum(one.multiplies for one in energies) / count),
        "skipping": _six(sum(one.nanojoules_skipping for one in energies) / count),
    }


def _sweeps(comparison: Comparison) -> list[dict[str, Any]]:
    """For each swept parameter: one line for each setting of everything else, with a point for each of its values."""
    grouping = comparison.grouping
    found = []
    for key in grouping.swept:
        lines: dict[str, list[dict[str, Any]]] = {}
        for place, group in enumerate(grouping.groups):
            if key not in group.settings:
                continue
            others = [
                f"{grouping.short[other]}={text_of(value)}"
                for other, value in group.settings.items()
                if other != key and f"{grouping.short[other]}=" in group.name
            ]
            value = group.settings[key]
            numeric = None if isinstance(value, bool) else number(value)
            point = {"group": place, "value": text_of(value), "number": numeric}
            lines.setdefault(", ".join([group.label, *others]), []).append(point)
        several = [{"name": name, "points": points} for name, points in lines.items() if len(points) > 1]
        if several:
            found.append({"key": key, "short": grouping.short[key], "lines": several})
    return found


def published_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each published number of the recipes that runs were trained with, and which row it may be held against."""
    found: dict[str, dict[str, Any]] = {}
    for place, row in enumerate(rows):
        config = _validated(row.group.runs[0])
        if config is None or config.recipe is None:
            continue
        left = deviations(config)
        values = dict(flat(config.plain()))
        for one in config.recipe.published:
            when = ", ".join(f"{key}={text_of(value)}" for key, value in one.when.items())
            entry = found.setdefault(
                f"{config.recipe.name} {when} {one.accuracy}",
                {
                    "recipe": config.recipe.name,
                    "source": config.recipe.source,
                    "when": when,
                    "accuracy": one.accuracy,
                    "spread": one.spread,
                    "groups": [],
                    "differs": "",
                },
            )
            unlike = [key for key, value in one.when.items() if values.get(key) != value]
            if not left and not unlike:
                entry["groups"].append(place)
            elif not entry["groups"]:
                entry["differs"] = "; ".join([*left, *(f"{key}={text_of(values.get(key))}" for key in unlike)])
    return list(found.values())


def _shared_config(runs: Sequence[Run]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What all configurations have in common, nested, and each run's own dotted keys, by its id."""
    flattened = {run.id: {key: value for key, value in flat(run.config) if not key.startswith("_")} for run in runs}
    first = flattened[runs[0].id]
    shared = [
        key for key, value in first.items() if all(key in one and one[key] == value for one in flattened.values())
    ]
    nested: dict[str, Any] = {}
    for key in shared:
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = first[key]
    own = {
        name: {key: value for key, value in values.items() if key not in set(shared)}
        for name, values in flattened.items()
    }
    return nested, own


def default_title(paths: Sequence[Path]) -> str:
    """A page's title where none is given."""
    return "Comparison of " + ", ".join(str(path) for path in paths)
