"""The comparison: a row of statistics for each group, and its difference from the baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gradspike.config.schema import PublishedConfig
from gradspike.cost.energy import Energy, energy_of
from gradspike.cost.neurobench_metrics import METRICS
from gradspike.shown import listed
from gradspike.statistics import Paired, Sample, describe, differs, holm, paired
from gradspike.tools.compare import series
from gradspike.tools.compare.aggregate import Aggregate, aggregated
from gradspike.tools.compare.baselines import METHOD, Interaction, find_baseline, interactions
from gradspike.tools.compare.groups import Group, Grouping
from gradspike.tools.compare.published import published_of
from gradspike.tools.compare.run import Excluded, Run, number
from gradspike.tools.compare.settled import unsettled
from gradspike.tools.compare.verdict import p_limit, power_line, verdict


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
    neurobench: Mapping[str, Sample]
    """NeuroBench's metrics, by name, of the runs that recorded them."""
    epoch_seconds: Sample | None
    """Median seconds of a training epoch, without validation and without compilation."""
    seconds: Sample | None
    """Seconds of the whole training, with compilation."""
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
    """Which groups differ from the baseline, as a sentence."""
    remarks: tuple[str, ...]
    """What limits the verdict: the smallest possible p-value, and the seeds that a small difference needs."""
    interactions: tuple[Interaction, ...]
    """Differences of differences, where something varies beside the baseline's key."""
    reference: str
    """What the differences of `interactions` are about, such as `method.width=0.5`; empty without any."""
    best: str | None
    """The group with the highest accuracy, if its difference from every other group is more than noise."""
    aggregate: Aggregate | None
    """Over several data sets."""
    notes: tuple[str, ...]
    excluded: tuple[Excluded, ...]


def compare(grouping: Grouping, baseline: Sequence[str], excluded: Sequence[Excluded]) -> Comparison:
    """The statistics of each group and of its differences from the baseline.

    `baseline`: a method, a group or a value of a swept key, and values of further keys for the differences of
    differences (see `baselines.find_baseline`). Without any, fixed_sg if it is there. Raises ConfigError for an unknown
    baseline.
    """
    base = find_baseline(grouping, baseline)
    accuracies = {group.name: _accuracies(group) for group in grouping.groups}
    against = base.of if base is not None else {}
    pairs = {name: paired(accuracies[name], accuracies[other.name]) for name, other in against.items()}
    tested = {name: pair for name, pair in pairs.items() if pair is not None}
    corrected = dict(zip(tested, holm([pair.p for pair in tested.values()]), strict=True))
    rows = tuple(
        _row(group, against.get(group.name), pairs.get(group.name), corrected.get(group.name))
        for group in grouping.groups
    )
    noun = METHOD if all(group.name == group.label for group in grouping.groups) else "group"
    judged = base is not None and bool(against)
    extra = [p_limit(list(tested.values())), power_line(list(tested.values()))]
    crossed = interactions(grouping, base, baseline[1:], accuracies) if base is not None else []
    return Comparison(
        rows=rows,
        grouping=grouping,
        baseline=None if base is None else base.name,
        verdict=verdict(tested, base.name, noun) if base is not None and judged else None,
        remarks=tuple(one for one in extra if one is not None),
        interactions=tuple(crossed),
        reference=base.name if base is not None and crossed else "",
        best=_best(grouping, accuracies),
        aggregate=aggregated(grouping, None if base is None or base.factor is None else base.factor),
        notes=(*grouping.notes, *_notes(rows), *([] if base is None else _unpaired(base.unpaired))),
        excluded=(*excluded, *grouping.excluded),
    )


def _best(grouping: Grouping, accuracies: Mapping[str, Mapping[int, float]]) -> str | None:
    """The group with the highest mean, if its intervals to all others, for all of them together, exclude 0."""
    if len(grouping.groups) < 2 or "dataset.name" in grouping.swept:
        return None
    first, *others = sorted(accuracies, key=lambda name: -describe(list(accuracies[name].values())).mean)
    pairs = [paired(accuracies[first], accuracies[other]) for other in others]
    return first if all(pair is not None and differs(pair, len(pairs)) for pair in pairs) else None


def _unpaired(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"Without a partner of equal settings at the baseline, so without a difference: {listed(names)}."]


def _accuracies(group: Group) -> dict[int, float]:
    found = {run.seed: run.final("last") for run in group.runs}
    return {seed: value for seed, value in found.items() if value is not None}


def _row(group: Group, against: Group | None, pair: Paired | None, corrected_p: float | None) -> Row:
    runs = group.runs
    energies = [energy_of(run.layers["last"], run.is_ann) for run in runs if run.layers]
    memory = [series.peak_memory(run) for run in runs]
    kinds = [what for value, what in memory if value is not None]
    parameters = {number(run.summary.get("parameters")) for run in runs}
    count = next(iter(parameters)) if len(parameters) == 1 else None
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
        neurobench={
            metric.name: sample
            for metric in METRICS
            if (sample := _sample(runs, partial(_neurobench, metric.name))) is not None
        },
        epoch_seconds=_sample(runs, series.epoch_seconds),
        seconds=_sample(runs, series.seconds),
        memory=_sample(runs, lambda run: series.peak_memory(run)[0]),
        memory_of=" and ".join(sorted(set(kinds))) or "process",
        parameters=None if count is None else int(count),
        published=published_of(runs[0]),
        against=against,
        paired=pair,
        corrected_p=corrected_p,
    )


def _neurobench(name: str, run: Run) -> float | None:
    return run.neurobench.get(name)


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
    notes += unsettled([run for row in rows for run in row.group.runs])
    in_folders = [run for row in rows for run in row.group.runs if run.source == "files"]
    if without := [run.path for run in in_folders if run.layers is None]:
        notes.append(f"Without energy, because layers.json is missing or damaged: {listed(without)}.")
    without = [run.path for run in in_folders if not run.neurobench]
    if 0 < len(without) < len(in_folders):
        notes.append(
            "NeuroBench's metrics are those of the other runs, because neurobench.json is missing or damaged: "
            f"{listed(without)}."
        )
    if untimed := [run.path for run in in_folders if not series.all_timed(run)]:
        notes.append(f"Time and memory of some epochs are lost, because timing.jsonl is incomplete: {listed(untimed)}.")
    return notes
