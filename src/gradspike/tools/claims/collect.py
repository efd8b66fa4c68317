"""Makes a summary from the finished runs of a sweep's folder. Imports nothing heavy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from gradspike.errors import ConfigError, UserError, unknown_path
from gradspike.json_text import readable, readable_lines
from gradspike.nested import flat
from gradspike.runs.files import fast_yaml
from gradspike.runs.probe_records import VALIDATION, layer_names, time_steps
from gradspike.shown import shown
from gradspike.tools.claims.summary import Course, Record, Summary

PER_LAYER = ("firing_rate", "gradient_available", "u_mean", "u_std", "theta", "kappa")
OVER_TRAINING = ("theta", "kappa")
SETTING = (
    "dataset.name", "dataset.image_size", "dataset.train_per_class", "dataset.batch_size", "dataset.window_ms",
    "dataset.val_fraction", "model.name", "model.width", "model.activation", "time_steps", "trainer.max_epochs",
    "optimizer.name", "optimizer.lr", "optimizer.weight_decay", "neuron.name", "norm.name", "method.name",
    "method.v_threshold",    "method.surrogate", "loss.name",
)  # fmt: skip
PLACES = {"dataset.source": "<data>", "data_dir": "", "runs_dir": "", "folder": "", "logger": "", "workers": ""}
"""Keys that name a place on this disk or change nothing, and what stands for them in a summary's command."""
DIGITS = 4


def collect(folder: Path) -> Summary:
    """The summary of a sweep's finished runs. Raises UserError if the folder is not a sweep's or no run is finished."""
    if not folder.exists():
        raise ConfigError(unknown_path("folder", folder))
    if not (folder / "sweep.json").is_file():
        raise ConfigError(f"{shown(folder)}: is not a sweep folder (it has no sweep.json).")
    trials = [readable(file) or {} for file in sorted(folder.glob("trials/*/trial.json"))]
    finished = sorted((t for t in trials if t.get("state") == "finished"), key=lambda trial: int(trial["number"]))
    if not finished:
        raise UserError(f"{shown(folder)}: no trial is finished. Continue the sweep with gradspike sweep.")
    runs = [(trial, folder / str(trial["run"])) for trial in finished]
    for trial, run in runs:
        if readable(run / "summary.json") is None or not (run / "config.yaml").is_file():
            raise UserError(f"{shown(folder)}: the run of trial {trial['number']} is missing or damaged: {shown(run)}")
    configs = [dict(flat(fast_yaml((run / "config.yaml").read_text(encoding="utf-8")))) for _, run in runs]
    text = (folder / "sweep.yaml").read_text(encoding="utf-8")
    file = yaml.safe_load(text)
    layers = _layers(run for _, run in runs)
    return Summary(
        question=_question(text),
        command=_command(text, file, finished[0]["overrides"]),
        setting=_shared(configs) | {"test samples": _test_samples(runs[0][1])},
        made_with=_made_with([run for _, run in runs]),
        layers=layers,
        planned=_planned(file),
        runs=tuple(_record(trial, run, config, layers) for (trial, run), config in zip(runs, configs, strict=True)),
    )


def merge(first: Summary, second: Summary, name: str) -> Summary:
    """One summary of a sweep with runs in two places. Raises UserError if they differ in anything but their trials.

    Settings of the method count only if both places have them in common: they may follow from the methods that ran. The
    processors may differ if no seed has runs on both, because runs are compared seed by seed.
    """
    for what in ("question", "layers"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            raise UserError(f"{name}: its two parts differ in {what}: {one} and {other}.")
    made_with = _made_with_both(first, second, name)
    shared = {key: value for key, value in first.setting.items() if second.setting.get(key) == value}
    differing = sorted({*first.setting, *second.setting} - {*shared})
    if odd := [key for key in differing if not key.startswith("method.")]:
        raise UserError(f"{name}: its two parts differ in {', '.join(odd)}.")
    there = [(run.seed, run.parameters) for run in first.runs]
    twice = [run for run in second.runs if (run.seed, run.parameters) in there]
    if twice:
        raise UserError(f"{name}: both parts have a run with seed {twice[0].seed} and {twice[0].parameters}.")
    runs = (*first.runs, *second.runs)
    planned = max(first.planned, second.planned, len(runs))  # each may have the grid of its part alone
    return first.model_copy(update={"runs": runs, "planned": planned, "setting": shared, "made_with": made_with})


def _made_with_both(first: Summary, second: Summary, name: str) -> dict[str, str]:
    one, other = first.made_with, second.made_with
    if one == other:
        return one
    seeds = {run.seed for run in second.runs}
    if {**one, "processor": ""} != {**other, "processor": ""} or seeds & {run.seed for run in first.runs}:
        raise UserError(f"{name}: its two parts differ in made_with: {one} and {other}.")
    of = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
    return one | {"processor": f"{one['processor']} ({of}: {other['processor']})"}


def _question(text: str) -> str:
    first = text.splitlines()[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def _command(text: str, file: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The command that makes the runs, without the keys that the sweep file sets to the same value."""
    own = {key: one.get("value") for key, one in file["parameters"].items()}
    words = []
    for word in overrides:
        key, _, value = word.partition("=")
        if key in PLACES:
            words += [f"{key}={PLACES[key]}"] if PLACES[key] else []
        elif key not in own or (own[key] is not None and _text(own[key]) != value):
            words.append(word)
    path = re.search(r"gradspike sweep (\S+\.yaml)", text)
    return " ".join(["gradspike sweep", path[1] if path else "sweep.yaml", *words])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all runs have in common, those that are not set left out."""
    first = configs[0]
    same = [key for key in SETTING if key in first and all(config.get(key) == first[key] for config in configs)]
    return {key: first[key] for key in same if first[key] is not None}


def _test_samples(run: Path) -> int | None:
    """Number of samples in the test, from the confusion matrix."""
    content = readable(run / "confusion.json")
    try:
        return sum(int(count) for _, _, count in content["last"])
    except (TypeError, ValueError, LookupError):
        return None


def _made_with(runs: Sequence[Path]) -> dict[str, str]:
    """What the runs ran on. Raises UserError if they ran different code: they must not be averaged."""
    sessions = [session for run in runs for session in readable(run / "environment.json", list) or ()]
    if not sessions:
        raise UserError("the runs of this sweep have no environment.json, which names the code that ran.")
    sources = sorted({str(session.get("source")) for session in sessions})
    if len(sources) > 1:
        raise UserError(f"the runs of this sweep ran different versions of the code: {', '.join(sources)}.")
    last = sessions[-1]
    return {
        "processor": str(last["processor"]),
        "python": str(last["python"]),
        "torch": str(last["versions"]["torch"]),
        "code": sources[0],
    }


def _planned(file: Mapping[str, Any]) -> int:
    """The number of trials of a grid."""
    number = 1
    for one in file["parameters"].values():
        number *= len(one.get("values", (None,)))
    return number


def _layers(runs: Iterator[Path]) -> tuple[str, ...]:
    """Names of the spiking layers, without those of ReLU twins; none if the networks of the runs differ in them."""
    found = {tuple(layer_names([_probes(run)[1]], VALIDATION, "firing_rate")) for run in runs} - {()}
    return found.pop() if len(found) == 1 else ()


def _probes(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The probe's training records and its record of the last validation."""
    training, validation = [], {}
    for record in readable_lines(run / "metrics.jsonl"):
        if any(key.startswith("probe/") for key in record):
            training.append(record)
        if any(key.startswith(f"{VALIDATION}/") for key in record):
            validation = record
    return training, validation


def _record(trial: Mapping[str, Any], run: Path, config: Mapping[str, Any], layers: Sequence[str]) -> Record:
    """A run's numbers; those of each layer only if `layers` names them."""
    result = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    training, validation = _probes(run)
    seconds = [float(epoch["train_seconds"]) for epoch in readable_lines(run / "timing.jsonl")]
    values = {
        "accuracy": result["test"]["last"]["accuracy"],
        "parameters": result["parameters"],
        "v_threshold": config["method.v_threshold"],
    } | ({"seconds_per_epoch": median(seconds)} if seconds else {})
    if (rate := result["test"]["last"].get("firing_rate")) is not None:  # the ReLU twin has none
        values["test_firing_rate"] = rate
    names = layer_names([validation], VALIDATION, "firing_rate") if layers else []
    return Record(
        seed=int(config["seed"]),
        parameters={key: value for key, value in trial["parameters"].items() if key != "seed"},
        values={name: _rounded(value, 7) for name, value in values.items()},
        last={one: _steps(validation, VALIDATION, names, one) for one in PER_LAYER} if names else {},
        start={"u_std": _steps(training[0], "probe", names, "u_std")} if names and training else {},
        course={one: _course(training, one) for one in OVER_TRAINING} if names and training else {},
    )


def _steps(record: Mapping[str, Any], prefix: str, names: Sequence[str], quantity: str) -> Any:
    return tuple(tuple(_rounded(record[key]) for key in time_steps(record, prefix, name, quantity)) for name in names)


def _course(records: Sequence[Mapping[str, Any]], quantity: str) -> Course:
    numbers = [(r["step"], r[f"probe/mean/{quantity}"], r[f"probe/spread_layers/{quantity}"]) for r in records]
    steps, means, sds = zip(*numbers, strict=True)
    return Course(step=steps, mean=tuple(map(_rounded, means)), sd=tuple(map(_rounded, sds)))


def _rounded(value: Any, digits: int = DIGITS) -> Any:
    return None if value is None else float(f"{value:.{digits}g}")
