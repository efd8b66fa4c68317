"""The comparison: a row of statistics for each group, and its difference from the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradspike.config.schema import PublishedConfig
from gradspike.cost.energy import Energy, energy_of
from gradspike.errors import ConfigError, unknown
from gradspike.json_text import to_json
from gradspike.shown import listed
from gradspike.statistics import Paired, Sample, describe, holm, paired, verdict
from gradspike.tools.compare import series
from gradspike.tools.compare.groups import Group, Grouping
from gradspike.tools.compare.published import published_of
from gradspike.tools.compare.run import Excluded, Run, number

DEFAULT_BASELINE = "fixed_sg"


@dataclass(frozen=True)
class Row:
    """One group: a row of the main table."""

    group: Group
    final: Sample
    """Test accuracy after the last epoch, as a fraction."""
    best: Sample | None
    """Test accuracy of the epoch with the best validation accuracy; None without a validation split."""
    firing_rate: Sample | None
    gradient: Sample | None
    """Fraction of neurons with |u - theta| < kappa / 2 at the last validation, mean over layers and steps."""
    gradient_spread: Sample | None
    """Its standard deviation over layers."""
    energy: Sample | None
    """Nanojoules per inference."""
    energies: tuple[Energy, ...]
    """The energy of each run that recorded it."""
    seconds: Sample | None
    memory: Sample | None
    """Peak memory of training in MiB."""
    memory_of: str
    parameters: int | None
    published: PublishedConfig | None
    against: Group | None
    """The group it is compared with; None for the baseline itself and without a baseline."""
    paired: Paired | None
    corrected_p: float | None


@dataclass(frozen=True)
class Comparison:
    """All rows, with notes."""

    rows: tuple[Row, ...]
    grouping: Grouping
    baseline: str | None
    verdict: str | None
    notes: tuple[str, ...]
    excluded: tuple[Excluded, ...]


def compare(grouping: Grouping, baseline: str | None, excluded: Sequence[Excluded]) -> Comparison:
    """The statistics of each group and of its differences from the baseline.

    `baseline` names a group, or a method: then each group is compared with that method's group of the same swept
    settings. None means fixed_sg if there is one. Raises ConfigError for an unknown baseline.
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
    """The name of the baseline, and for each group, by name, the group to compare it with."""
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
        raise ConfigError(f"--baseline: {unknown('method or group', baseline, dict.fromkeys([*labels, *names]))}")
    candidates: dict[str, list[Group]] = {}
    for group in grouping.groups:
        if group.label == baseline:
            candidates.setdefault(_place(group), []).append(group)
    found: dict[str, Group] = {}
    for group in grouping.groups:
        partners = candidates.get(_place(group), [])
        if group.label != baseline and len(partners) == 1:
            found[group.name] = partners[0]
    return baseline, found


def _place(group: Group) -> str:
    """The swept settings of a group, apart from options of its method, as text."""
    kept = {key: value for key, value in group.settings.items() if not key.startswith(("method.", "neuron."))}
    return to_json(kept, sort_keys=True)


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
        published=published_of(runs[0]),
        against=against,
        paired=pair,
        corrected_p=corrected_p,
    )


def _sample(runs: Sequence[Run], quantity: Callable[[Run], float | None]) -> Sample | None:
    values = [value for run in runs if (value := quantity(run)) is not None]
    return describe(values) if values else None


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    machines = {
        (session.get("host"), session.get("processor"))
        for row in rows
        for run in row.group.runs
        for session in run.sessions[:1]
    }
    if len(machines) > 1:
        notes.append(f"The runs come from {len(machines)} machines: do not compare their times and memory.")
    counts = {row.final.n for row in rows}
    if len(counts) > 1:
        notes.append("Groups differ in their number of seeds; differences use the shared seeds.")
    if any(row.best is None for row in rows):
        notes.append("Runs without a validation split have no best epoch; only their last epoch counts.")
    if any(number(run.config.get("trainer", {}).get("ema")) is not None for row in rows for run in row.group.runs):
        notes.append("Some runs are evaluated with the moving average of their weights (trainer.ema).")
    in_folders = [run for row in rows for run in row.group.runs if run.source == "files"]
    if without := [run.path for run in in_folders if run.layers is None]:
        notes.append(f"Without energy, because layers.json is missing or damaged: {listed(without)}.")
    if untimed := [run.path for run in in_folders if not series.all_timed(run)]:
        notes.append(f"Time and memory of some epochs are lost, because timing.jsonl is incomplete: {listed(untimed)}.")
    return notes
