"""The data of the HTML page: tables, figures and runs, ready for JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from gradspike.cost.energy import Energy
from gradspike.cost.neurobench_metrics import METRICS
from gradspike.nested import flat
from gradspike.shown import counted, printable, shell_words
from gradspike.statistics import ALPHA, INTERVALS, Sample
from gradspike.tools.compare import series
from gradspike.tools.compare.aggregate import Aggregate
from gradspike.tools.compare.columns import equal_line, split_columns
from gradspike.tools.compare.energy_reason import energy_reason
from gradspike.tools.compare.groups import Group, text_of
from gradspike.tools.compare.published import published_rows
from gradspike.tools.compare.quantities import CURVES, HEATS, PATHS
from gradspike.tools.compare.report import Comparison, Row
from gradspike.tools.compare.run import Run, number
from gradspike.tools.compare.table import Cells, aggregate_note, caption, crossed, over_data_sets

ELSEWHERE = ("interval", "p", "layers")
"""Columns that the page's table leaves out unless they are chosen: they stand below the accuracy, and in figures."""
MOST_CURVE_VALUES = 400_000
"""Above this number of values the curves of single seeds are left out, so that a page stays small."""


def page_data(
    comparison: Comparison, title: str, command: str, made: str, keys: Sequence[str] | None = None
) -> dict[str, Any]:
    """All content of the HTML page, as plain data. keys: the chosen columns of the main table."""
    rows = comparison.rows
    groups = [row.group for row in rows]
    index = {group.name: place for place, group in enumerate(groups)}
    every_run = [run for group in groups for run in group.runs]
    common, own = _shared_config(every_run)
    columns, equal = split_columns(comparison, keys)
    return {
        "title": printable(title),
        "command": command,
        "made": made,
        "subtitle": subtitle(comparison),
        "columns": [column.key for column in columns if keys is not None or column.key not in ELSEWHERE],
        "interval_below": keys is None,
        "equal": equal_line(equal),
        "neurobench": [asdict(metric) for metric in METRICS],
        "caption": caption(comparison, keys),
        "alpha": ALPHA,
        "baseline": comparison.baseline,
        "intervals": INTERVALS,
        "verdict": comparison.verdict,
        "notes": [*comparison.remarks, *comparison.notes],
        "energy_reason": energy_reason(comparison),
        "crossed": _table(crossed(comparison)) if comparison.interactions else None,
        "aggregate": _aggregate_data(comparison.aggregate, index),
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
        "curves": _curves(groups),
        "clock": {str(place): spent for place, group in enumerate(groups) if (spent := series.clock(group))},
        "heat": _each(HEATS, groups, series.heat),
        "paths": _each(PATHS, groups, series.path_of),
        "classes": {str(place): found for place, group in enumerate(groups) if (found := series.classes(group))},
        "energy": {str(place): _energy_data(row.energies) for place, row in enumerate(rows) if row.energies},
        "sweeps": _sweeps(comparison),
        "published": published_rows(groups),
        "config": yaml.safe_dump(common, sort_keys=False),
        "runs": [
            {
                "group": index[group.name],
                "seed": run.seed,
                "path": run.path,
                "final": _six(run.final("last")),
                "best": _six(run.final("best")) if run.validates else None,
                "started": run.started,
                "command": _typed(run.command),
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


def _typed(command: Sequence[str]) -> str:
    """A recorded command as typed. Older runs recorded a script without its interpreter."""
    return shell_words(["python", *command] if command and command[0].endswith(".py") else command)


def _each(
    quantities: Sequence[str], groups: Sequence[Group], make: Callable[[Group, str], dict[str, Any] | None]
) -> dict[str, dict[str, Any]]:
    """{quantity: {index of the group: the result of `make`}}, without those that are None."""
    found = {
        quantity: {
            str(place): made for place, group in enumerate(groups) if (made := make(group, quantity)) is not None
        }
        for quantity in quantities
    }
    return {quantity: values for quantity, values in found.items() if values}


def _curves(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    found = _each(CURVES, groups, series.curve)
    every = [one for by_group in found.values() for one in by_group.values()]
    if sum(len(seed) for one in every for seed in one["seeds"]) > MOST_CURVE_VALUES:
        for one in every:
            one["seeds"] = None
    return found


_six = series.rounded


def _table(cells: Cells) -> dict[str, Any]:
    return {"head": cells[0], "rows": cells[1]}


def _aggregate_data(aggregate: Aggregate | None, index: Mapping[str, int]) -> dict[str, Any] | None:
    """The table over several data sets, its explanation, and the performance profiles in the colours of a group."""
    if aggregate is None:
        return None
    return {
        **_table(over_data_sets(aggregate)),
        "note": aggregate_note(aggregate),
        "x": [_six(100 * one) for one in aggregate.accuracies],
        "groups": [index[line.groups[0].name] for line in aggregate.lines],
        "profiles": [[_six(100 * one) for one in line.profile] for line in aggregate.lines],
    }


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
        "layers": _sample_data(row.gradient_spread),
        "firing": _sample_data(row.firing_rate),
        "gradient": _sample_data(row.gradient),
        "energy": _sample_data(row.energy),
        "neurobench": {name: _six(sample.mean) for name, sample in row.neurobench.items()},
        "epoch": _sample_data(row.epoch_seconds),
        "memory": _sample_data(row.memory),
        "memory_of": row.memory_of,
        "parameters": row.parameters,
        "macs": row.energies[0].macs if row.energies else None,
        "published": None if row.published is None else [row.published.accuracy, row.published.spread],
    }


def _energy_data(energies: Sequence[Energy]) -> dict[str, Any]:
    """The energy of each layer and totals, as means over seeds."""
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
    """For each swept parameter, a line for each setting of the others, with a point for each value."""
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


def _shared_config(runs: Sequence[Run]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The common part of all configurations (nested), and the other keys of each run (dotted) by its id."""
    flattened = {run.id: {key: value for key, value in flat(run.config) if not key.startswith("_")} for run in runs}
    first = flattened[runs[0].id]
    # Keys in the order of the first run's.
    shared = {
        key: None for key, value in first.items() if all(key in one and one[key] == value for one in flattened.values())
    }
    nested: dict[str, Any] = {}
    for key in shared:
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = first[key]
    own = {
        name: {key: value for key, value in values.items() if key not in shared} for name, values in flattened.items()
    }
    return nested, own


def default_title(places: Sequence[str]) -> str:
    """The default title of a page."""
    return "Comparison of " + ", ".join(printable(place) for place in places)


def subtitle(comparison: Comparison) -> str:
    """What all runs share: `digits · spiking_cnn · T = 4 · 2 epochs · 359 test samples`. Leaves out what differs."""
    runs = [run for row in comparison.rows for run in row.group.runs]
    samples = {sum(count for _, _, count in found["last"]) for run in runs[:: max(1, len(runs) // 20)]
               if (found := run.confusion)}  # fmt: skip

    def common(text: Callable[[Run], Any]) -> Any:
        values = {str(text(run)): text(run) for run in runs}
        return next(iter(values.values())) if len(values) == 1 else None

    data_set = common(lambda run: run.config["dataset"].get("name"))
    model = common(lambda run: run.config["model"].get("name"))
    steps = common(lambda run: run.config.get("time_steps"))
    epochs = common(lambda run: run.config["trainer"].get("max_epochs"))
    parts = [
        data_set and str(data_set),
        model and str(model),
        steps and f"T = {steps}",
        counted(epochs, "epoch") if isinstance(epochs, int) else None,
        f"{counted(next(iter(samples)), 'test sample')}" if len(samples) == 1 else None,
    ]
    return " · ".join(printable(part) for part in parts if part)
