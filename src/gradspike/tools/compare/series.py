"""Curves, heat maps and other series of a group, over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.runs.probe_records import VALIDATION, layer_names, time_steps
from gradspike.tools.compare.groups import Group
from gradspike.tools.compare.run import Run, number

LARGEST_MATRIX = 100  # largest number of classes for which the confusion matrix is drawn

Numbers = list[float | None]


def rounded(value: float | None) -> float | None:
    """`value` rounded to six digits, more than a figure shows."""
    return None if value is None else float(f"{value:.6g}")


def curve(group: Group, metric: str) -> dict[str, Any] | None:
    """Mean, standard deviation and values of each seed for each epoch that all runs have."""
    by_epoch: dict[int, list[float]] = {}
    for run in group.runs:
        for record in run.epochs:
            value, epoch = number(record.get(metric)), number(record.get("epoch"))
            if value is not None and epoch is not None:
                by_epoch.setdefault(int(epoch), []).append(value)
    whole = {epoch: values for epoch, values in sorted(by_epoch.items()) if len(values) == len(group.runs)}
    if not whole:
        return None
    return {
        "x": [epoch + 1 for epoch in whole],
        "mean": [rounded(float(np.mean(values))) for values in whole.values()],
        "sd": [rounded(_sd(values)) for values in whole.values()],
        "seeds": [[rounded(values[place]) for values in whole.values()] for place in range(len(group.runs))],
    }


def clock(group: Group) -> dict[int, float] | None:
    """Seconds of training until the end of each epoch (from 1), without validation, mean over seeds; None if some are
    not recorded."""
    if not all(all_timed(run) for run in group.runs):
        return None
    by_run = [_seconds_by_epoch(run) for run in group.runs]
    shared = sorted(set.intersection(*(set(one) for one in by_run)))
    if not shared:
        return None
    spent = np.cumsum([[one[epoch] for one in by_run] for epoch in shared], axis=0)
    return {epoch + 1: float(f"{value:.5g}") for epoch, value in zip(shared, spent.mean(1), strict=True)}


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def heat(group: Group, quantity: str) -> dict[str, Any] | None:
    """Layer x time step at the last validation, mean over seeds: {"layers": [...], "values": [[...], ...]}."""
    records = [run.validation for run in group.runs if run.validation]
    names = layer_names(records, VALIDATION, quantity)
    rows = [
        [_mean([record.get(key) for record in records]) for key in time_steps(records[0], VALIDATION, name, quantity)]
        for name in names
    ]
    return {"layers": names, "values": rows} if rows else None


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [found for value in values if (found := number(value)) is not None]
    return rounded(float(np.mean(numbers))) if numbers else None


def path_of(group: Group, quantity: str) -> dict[str, Any] | None:
    """theta or kappa of each layer during training, mean over seeds: {"x": steps, "layers": {name: [...]}}.

    Only steps that all runs have.
    """
    by_run = [{int(record["step"]): record for record in run.probes} for run in group.runs if run.probes]
    if not by_run:
        return None
    steps = sorted(set.intersection(*(set(records) for records in by_run)))
    names = layer_names([next(iter(records.values())) for records in by_run], "probe", quantity)
    if not steps or not names:
        return None
    layers: dict[str, Numbers] = {
        name: [_mean([records[step].get(f"probe/{name}/{quantity}") for records in by_run]) for step in steps]
        for name in names
    }
    means = [_mean([values[index] for values in layers.values()]) for index in range(len(steps))]
    return {"x": steps, "layers": {"mean over layers": means, **layers}}


def classes(group: Group) -> dict[str, Any] | None:
    """Accuracy of each class after the last epoch, and the confusion matrix over all seeds."""
    total: NDArray[np.int64] | None = None
    of_runs = []
    for run in group.runs:
        if not (one := run.confusion):
            continue
        if total is None:
            count = int(one["classes"])
            total = np.zeros((count, count), dtype=np.int64)
        matrix = np.zeros_like(total)
        for label, predicted, samples in one["last"]:
            matrix[label, predicted] = samples
        total += matrix
        of_runs.append(np.diag(matrix) / np.maximum(matrix.sum(1), 1))
    if total is None:
        return None
    accuracies = np.array(of_runs)
    wrong = total - np.diag(np.diag(total))
    worst = np.argsort(-wrong, axis=None, kind="stable")[:10]
    return {
        "accuracy": [rounded(float(value)) for value in accuracies.mean(0)],
        "sd": [rounded(_sd(values)) for values in accuracies.T.tolist()],
        "samples": [int(value) for value in total.sum(1) // len(of_runs)],
        "matrix": total.tolist() if count <= LARGEST_MATRIX else None,
        "worst": [
            [int(place // count), int(place % count), int(wrong.flat[place])] for place in worst if wrong.flat[place]
        ],
    }


def seconds(run: Run) -> float | None:
    """Seconds of training without validation, over all sessions. A repeated epoch counts once."""
    by_epoch = _seconds_by_epoch(run)
    return sum(by_epoch.values()) if by_epoch else None


def epoch_seconds(run: Run) -> float | None:
    """Median seconds of a training epoch without validation. The run's first epoch, in which the network is compiled,
    counts only if there is no other; a median hides those of resumed sessions."""
    by_epoch = _seconds_by_epoch(run)
    later = [spent for epoch, spent in by_epoch.items() if epoch > min(by_epoch)]
    return float(np.median(later or list(by_epoch.values()))) if by_epoch else None


def all_timed(run: Run) -> bool:
    """Whether the time of each epoch is known."""
    return len(_seconds_by_epoch(run)) >= len({record.get("epoch") for record in run.epochs})


def _seconds_by_epoch(run: Run) -> dict[int, float]:
    by_epoch: dict[int, float] = {}
    for line in run.timing:
        spent, epoch = number(line.get("train_seconds")), number(line.get("epoch"))
        if spent is not None and epoch is not None:
            by_epoch[int(epoch)] = max(spent, by_epoch.get(int(epoch), 0.0))
    return by_epoch


def peak_memory(run: Run) -> tuple[float | None, str]:
    """Peak memory of training in MiB, and its kind: `GPU` (allocated) or `process` (resident)."""
    for key, what in (("peak_memory_mb", "GPU"), ("peak_rss_mb", "process")):
        found = [value for line in run.timing if (value := number(line.get(key))) is not None]
        if found:
            return max(found), what
    return None, "process"
