"""Runs, trials and long runs for `size.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from typing_extensions import override

from gradspike.config.compose import load_config
from gradspike.loggers.closing import last_validation
from gradspike.loggers.jsonl import JsonLines
from gradspike.runs.newest import newest_run
from gradspike.runs.timing import drop_epochs, training_seconds
from gradspike.tools.compare.command import compare
from gradspike.tools.sweep import file as sweep_file
from gradspike.tools.sweep.file import Metric
from gradspike.tools.sweep.folder import SweepFolder
from gradspike.tools.sweep.progress import Progress
from gradspike.tools.sweep.proposals import Proposal, proposals
from gradspike.tools.sweep.runner import Runner
from gradspike.tools.sweep.study import Study, build_pruner
from gradspike.tools.sweep.table import Table
from gradspike.tools.sweep.words import Words, build
from gradspike.tools.sweep.workload import Plan, Workload
from size_part import Part

WORKERS = 8
EPOCHS, PROBES = 200, 200
TINY: tuple[str, ...] = (
    "dataset=digits",
    "model.width=4",
    "model.depth=2",
    "trainer.progress=none",
    "trainer.accelerator=cpu",
)
TINY += ("engine=eager", "method=mpd_agl", "optimizer.lr=0.5", "recipe=none")
SWEEP = """\
program: src/train.py
method: grid
metric: {name: val/accuracy, goal: maximize}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


def _template(folder: Path) -> tuple[Path, list[dict[str, Any]], dict[str, Any]]:
    """A trained run of two epochs, its last epoch's records, and a record of the probe."""
    words = [*TINY, "trainer.max_epochs=2", "probe.every_n_steps=5", f"data_dir={folder}", f"runs_dir={folder}/first"]
    source = Path(__file__).resolve().parents[1] / "src"
    subprocess.run(
        [sys.executable, "-m", "gradspike", "train", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    (run,) = (folder / "first").iterdir()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    probe = next(record for record in records if any(key.startswith("probe/") for key in record))
    last = [record for record in records if record.get("epoch") == 1 or any("probe_val/" in key for key in record)]
    return run, last, probe


def _metrics(file: Path, epochs: int, probes: int, last: list[dict[str, Any]], probe: dict[str, Any]) -> None:
    """Write metrics.jsonl with as many records of both kinds, in turn."""
    with file.open("w", encoding="utf-8") as out:
        text = json.dumps({**probe, "step": -1})
        for epoch in range(epochs):
            for number in range(epoch * probes // epochs, (epoch + 1) * probes // epochs):
                out.write(text.replace('"step": -1', f'"step": {number}') + "\n")
            for record in last:
                epoch_of = {"epoch": epoch} if "epoch" in record else {}
                out.write(json.dumps({**record, **epoch_of, "step": (epoch + 1) * probes // epochs}) + "\n")


def _timing(run: Path, epochs: int) -> None:
    line = json.loads((run / "timing.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    lines = (json.dumps({**line, "epoch": epoch}) + "\n" for epoch in range(epochs))
    (run / "timing.jsonl").write_text("".join(lines), encoding="utf-8")


def make_runs(folder: Path, count: int) -> None:
    """Write runs of two methods, five seeds and as many learning rates as it takes."""
    first, last, probe = _template(folder)
    _metrics(first / "metrics.jsonl", EPOCHS, PROBES, last, probe)
    _timing(first, EPOCHS)
    config = yaml.safe_load((first / "config.yaml").read_text(encoding="utf-8"))
    summary = json.loads((first / "summary.json").read_text(encoding="utf-8"))
    other = load_config([*TINY, "method=fixed_sg"]).plain()
    random = np.random.default_rng(0)
    for number in range(count):
        run = folder / "runs" / f"run_{number:05d}"
        run.mkdir(parents=True)
        for file in first.iterdir():
            if file.is_file():
                os.link(file, run / file.name)
        summary["test"]["last"]["accuracy"] = float(random.uniform(0.8, 1))
        config["seed"], config["optimizer"]["lr"] = number // 2 % 5, 0.001 * (1 + number // 10)
        method = config["method"] if number % 2 else other["method"]
        for name, text in (
            ("run.json", json.dumps({"id": f"{number:08x}"})),
            ("config.yaml", yaml.dump({**config, "method": method}, sort_keys=False, Dumper=yaml.CSafeDumper)),
            ("summary.json", json.dumps(summary)),
        ):
            (run / name).unlink()
            (run / name).write_text(text, encoding="utf-8")


def compare_runs(out: str | None, folder: Path, count: int) -> None:
    """Compare all runs, on the terminal or also as a page."""
    os.environ["COLUMNS"] = "200"
    assert compare([str(folder / "runs"), *([] if out is None else ["--out", str(folder / out)])]) == 0


def resume_auto(folder: Path, count: int) -> None:
    """Look for the newest unfinished run of a configuration that no run has."""
    assert newest_run(load_config([*TINY, f"runs_dir={folder}/runs", "time_steps=3"])) is None


class ShortTrials(Words):
    """Trials that only write their files."""

    @override
    def command(self, overrides: Any) -> list[str]:
        script = str(Path(__file__).with_name("size_trial.py"))
        return [sys.executable, "-S", "-E", script, os.environ["SIZE_TEMPLATE"], *overrides]


def make_sweep(folder: Path, count: int) -> None:
    """Write a sweep file of up to 100 seeds and as many learning rates as it takes."""
    run, *_ = _template(folder)
    run.rename(folder / "template")
    constants = dict(word.split("=") for word in TINY if not word.startswith("optimizer.lr"))
    seeds = min(100, count)
    parameters = {name: {"value": yaml.safe_load(value)} for name, value in constants.items()}
    parameters["optimizer.lr"] = {"values": [0.001 * (1 + index) for index in range(count // seeds)]}
    parameters["seed"] = {"values": list(range(seeds))}
    text = SWEEP + yaml.safe_dump({"parameters": parameters}, sort_keys=False)
    (folder / "sweep.yaml").write_text(text, encoding="utf-8")


def _sweep(folder: Path) -> Workload:
    os.environ["SIZE_TEMPLATE"] = str(folder / "template")
    file = sweep_file.read(folder / "sweep.yaml")
    words = ShortTrials(**vars(build(file, [f"data_dir={folder}"])))
    place, metrics = SweepFolder(folder / "sweep"), file.options.metrics
    place.create("sweep", "study.db")
    study = Study(place.path / "study.db", "sweep", metrics[0], build_pruner(None, None, 1), 0)
    total = study.fill(proposals(file, words, None, 0), {})
    plan = Plan(words, metrics, file.swept, WORKERS, gpus=[], gpus_needed=1, retries=0, epochs=2)
    return Workload(place, study, plan, None, Table(metrics, total, "again"))


def add_trials(folder: Path, count: int) -> None:
    """Add all trials to a new study."""
    assert len(_sweep(folder).study.trials()) == count


def run_trials(folder: Path, count: int) -> None:
    """Run all trials, or as many as are left; prints the closing table."""
    work = _sweep(folder)
    assert Runner(work).run() == 0
    assert sum(trial.state.is_finished() for trial in work.study.trials()) == count


def compare_sweep(folder: Path, count: int) -> None:
    """Compare the trials' runs."""
    assert compare(["--sweep", str(folder / "sweep")]) == 0


def _study(folder: Path) -> Study:
    metric = Metric(name="val/accuracy", goal="maximize")
    return Study(folder / "study.db", "study", metric, build_pruner("median", None, 9), 0)


def add_to_study(folder: Path, count: int) -> None:
    """Add trials to a study."""
    study = _study(folder)
    assert study.fill([Proposal(str(number), {"seed": number}) for number in range(count)], {}) == count


def use_study(folder: Path, count: int) -> None:
    """Take and finish a hundredth of the trials, one by one, with the looks and reports of a runner."""
    study = _study(folder)
    for done in range(count // 100):
        trial = study.trials()[done]
        assert study.take(trial, "here", "this machine")
        for epoch in (1, 2):
            study.report(trial.number, epoch, 0.5)
        study.finish(trial.number, [0.5])


def make_steps(folder: Path, count: int) -> None:
    """Write one run with as many records of the probe, of 1 kB each, and an epoch for each thousand."""
    first, last, probe = _template(folder)
    (folder / "runs").mkdir()
    run = first.rename(folder / "runs" / first.name)
    layers = [key for key in probe if key.endswith(("/theta", "/kappa"))]
    kept = dict.fromkeys(["step", *layers, *probe])
    while len(json.dumps({key: probe[key] for key in kept})) > 1000:
        kept.popitem()
    epochs = max(count // 1000, 1)
    _metrics(run / "metrics.jsonl", epochs, count, last, {key: probe[key] for key in kept})
    _timing(run, epochs)


def _run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def follow(folder: Path, count: int) -> None:
    """Read the run's progress, as a sweep does."""
    progress = Progress(_run(folder), Metric(name="val/accuracy", goal="maximize"))
    progress.update()
    assert progress.done == max(count // 1000, 1)


def close_logger(folder: Path, count: int) -> None:
    """Find the last validation, as W&B's logger does at the end."""
    assert last_validation(_run(folder) / "metrics.jsonl")


def resume(folder: Path, count: int) -> None:
    """Cut the metrics and timing to the state of a checkpoint, as a resumed run does."""
    metrics = JsonLines(_run(folder) / "metrics.jsonl")
    metrics.cut(metrics.size_on_disk() - 1000)
    drop_epochs(_run(folder) / "timing.jsonl", max(count // 1000, 1) - 1)
    training_seconds(_run(folder) / "timing.jsonl")


def log_more(folder: Path, count: int) -> None:
    """Append a hundredth as many records."""
    metrics = JsonLines(_run(folder) / "metrics.jsonl")
    for step in range(count // 100):
        metrics.log_metrics({"probe/mean/firing_rate": 0.5, "time": time.time()}, step)


PARTS: dict[str, Part] = {
    "runs": Part(
        1000,
        make_runs,
        {
            "compare": partial(compare_runs, None),
            "compare --out page.html": partial(compare_runs, "page.html"),
            "resume=auto": resume_auto,
        },
    ),
    "trials": Part(
        10_000,
        make_sweep,
        {
            "add the trials": add_trials,
            "run the trials": run_trials,
            "start again": run_trials,
            "compare --sweep": compare_sweep,
        },
    ),
    "study": Part(
        10_000, lambda folder, count: None, {"add the trials": add_to_study, "take and finish 1 %": use_study}
    ),
    "steps": Part(
        1_000_000,
        make_steps,
        {
            "compare --out page.html": partial(compare_runs, "page.html"),
            "progress in a sweep": follow,
            "W&B's last numbers": close_logger,
            "resume": resume,
            "log a hundredth more": log_more,
        },
    ),
}
