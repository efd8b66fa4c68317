"""`compare --sweep`: the runs of a sweep's trials, and what became of the others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gradspike.errors import ConfigError
from gradspike.tools.compare.sweeps import gather_sweep
from helpers.limits import permissions_count


def sweep_of(runs: Path, tmp_path: Path) -> Path:
    """A sweep whose trials are the runs of one method, by name."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text("{}")
    shutil.move(runs, folder / "runs")
    for number, name in enumerate(runs_of(folder)):
        (folder / "trials" / str(number)).mkdir(parents=True)
        record = {"state": "finished", "run": f"runs/{name}"}
        (folder / "trials" / str(number) / "trial.json").write_text(json.dumps(record))
    return folder


def runs_of(folder: Path) -> list[str]:
    return sorted(run.name for run in (folder / "runs").glob("*_fixed_sg_*"))


def test_a_sweep_counts_its_trials_alone(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    (folder / "trials").mkdir(parents=True)
    (folder / "sweep.json").write_text("{}")
    shutil.move(runs, folder / "runs")
    kept = sorted((folder / "runs").glob("*_fixed_sg_*"))
    trials: list[dict[str, Any]] = [{"state": "finished", "run": f"runs/{run.name}"} for run in kept]
    trials.append({"state": "failed", "run": None, "reason": "no memory"})
    trials.append({"state": "running", "run": None})  # its process and its runner were killed
    for number, trial in enumerate(trials):
        (folder / "trials" / str(number)).mkdir()
        (folder / "trials" / str(number) / "trial.json").write_text(json.dumps(trial))
    found = gather_sweep(folder)
    assert {run.label for run in found.runs} == {"fixed_sg"}
    reasons = [one.reason for one in found.excluded]
    assert reasons.count("belongs to no trial of the sweep") == 4
    assert "failed: no memory" in reasons
    assert "not finished: it was killed" in reasons
    with pytest.raises(ConfigError, match=r"no sweep\.json"):
        gather_sweep(tmp_path)


def test_trials_and_runs_that_must_not_be_read_are_listed(runs: Path, tmp_path: Path) -> None:
    folder = sweep_of(runs, tmp_path)
    closed = folder / "runs" / runs_of(folder)[0]
    (folder / "trials" / "1").chmod(0)
    closed.chmod(0)
    with permissions_count():
        found = gather_sweep(folder)
    for place in (closed, folder / "trials" / "1"):
        place.chmod(0o700)
    reasons = {one.path.rpartition("/")[2]: one.reason for one in found.excluded}
    assert reasons["sweep, trial 0"] == f"finished: its run runs/{closed.name} cannot be read"
    assert reasons["sweep, trial 1"] == "unknown: its trial.json cannot be read (Permission denied)"


def test_a_process_of_the_same_number_long_ago_is_another(runs: Path, tmp_path: Path) -> None:
    """A trial whose runner was killed has a process and no run."""
    folder = sweep_of(runs, tmp_path)
    names = runs_of(folder)
    for name, written in zip(names[:2], (1_000, 900_000), strict=True):
        status = json.loads((folder / "runs" / name / "status.json").read_text())
        (folder / "runs" / name / "status.json").write_text(json.dumps(status | {"host": "here", "pid": 7}))
        os.utime(folder / "runs" / name / "status.json", (written, written))
    trial = {"state": "running", "run": None, "run_id": None, "host": "here", "pid": 7, "started": 800_000.0}
    for number in (0, 1):
        shutil.rmtree(folder / "trials" / str(number))
    (folder / "trials" / "2" / "trial.json").write_text(json.dumps(trial))
    assert [run.path.rpartition("/")[2] for run in gather_sweep(folder).runs] == [names[1]]
