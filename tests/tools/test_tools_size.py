"""A thousand runs and ten thousand trials: the cost of each, counted rather than timed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from optuna.storages import RDBStorage

from gradspike.config.compose import load_config
from gradspike.runs import newest
from gradspike.runs.folder import RunFolder
from gradspike.runs.newest import newest_run
from gradspike.tools.compare import series
from gradspike.tools.compare.folder import PROBES, read_run
from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.groups import Group, group_runs
from gradspike.tools.compare.report import compare
from gradspike.tools.compare.run import Run
from gradspike.tools.compare.sweeps import gather_sweep
from gradspike.tools.sweep.file import Metric
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.progress import Progress
from gradspike.tools.sweep.proposals import Proposal
from gradspike.tools.sweep.study import Study, build_pruner
from gradspike.tools.sweep.trial import find_run
from helpers.counting import memory, operations

METRIC = Metric(name="val/accuracy", goal="maximize")


def growth(action: Callable[[int], object], small: int, large: int) -> float:
    """Operations per item at the large number, relative to the small one."""
    return operations(lambda: action(large)) / large * small / operations(lambda: action(small))


@pytest.fixture(scope="module")
def one_run(compared_runs: Path) -> Run:
    """A run of mpd_agl."""
    return next(run for run in gather([compared_runs]).runs if run.label == "mpd_agl")


def swept(base: Run, count: int) -> list[Run]:
    """Runs of two methods with different learning rates and method options; only a few keys."""
    runs = []
    for number in range(count):
        config = {section: {"name": base.config[section]["name"]} for section in ("dataset", "model", "method")}
        config["method"] |= {"label": f"ours_{number % 2}", "sigma": float(number // 2)}
        config |= {"optimizer": {"lr": float(number // 2)}, "trainer": {"max_epochs": 2}}
        runs.append(replace(base, id=str(number), path=f"runs/{number}", config={**config, "seed": 0}, layers=None))
    return runs


def test_a_comparison_grows_with_its_groups(one_run: Run) -> None:
    def compared(count: int) -> None:
        comparison = compare(group_runs(swept(one_run, count)), ["ours_0"], ())
        assert len(comparison.rows) == count
        assert sum(row.paired is not None for row in comparison.rows) == count // 2

    compared(4)
    assert growth(compared, 20, 150) < 1.05


def long_metrics(run: Path, records: int) -> int:
    """Repeat the first record of the probe in a run's metrics.jsonl. Returns the file's bytes."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    probe = next(json.loads(line) for line in lines if '"probe/' in line)
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(records):
            file.write(json.dumps({**probe, "step": step}) + "\n")
        file.write("\n".join(lines) + "\n")
    return (run / "metrics.jsonl").stat().st_size


@pytest.fixture
def run_folder(compared_runs: Path, tmp_path: Path) -> Path:
    """A copy of a run of mpd_agl."""
    original = next(compared_runs.glob("*_mpd_agl_*_s1_*"))
    return Path(shutil.copytree(original, tmp_path / "runs" / "one", ignore=shutil.ignore_patterns("checkpoints")))


def test_long_metrics_are_not_read_into_memory(run_folder: Path) -> None:
    size = long_metrics(run_folder, 1000)
    read_run(run_folder)
    kept, peak = memory(lambda: read_run(run_folder))
    assert peak < size / 4
    assert kept < 0.5e6
    read = read_run(run_folder)
    assert len(read.probes) == PROBES
    assert [record["step"] for record in read.probes[:3]] == [0, 8, 17]
    assert {key.rpartition("/")[2] for key in read.probes[0]} == {"step", "theta", "kappa"}
    _, peak = memory(Progress(run_folder, METRIC).update)
    assert peak < size / 20


def test_confusion_matrices_are_held_one_at_a_time(one_run: Run, tmp_path: Path) -> None:
    file = tmp_path / "confusion.json"
    file.write_text(json.dumps({"classes": 300, "last": [[label, label, 5] for label in range(300)]}))
    group = Group("ours", "ours", {}, tuple(replace(one_run, confusion_file=file) for _ in range(30)))
    found = series.classes(group)
    assert found is not None
    assert found["accuracy"] == [1.0] * 300
    assert found["samples"] == [5] * 300
    assert memory(lambda: series.classes(group))[1] < 8 * 300 * 300 * 8


def test_resume_auto_reads_one_finished_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(["dataset=digits", f"runs_dir={tmp_path}"])
    runs = [RunFolder.create(config) for _ in range(5)]
    for run in runs:
        run.set_status("finished")
    parsed: list[str] = []
    original = newest.fast_yaml
    monkeypatch.setattr(newest, "fast_yaml", lambda text: (parsed.append(text), original(text))[1])
    found = newest_run(config)
    assert found is not None
    assert found.path.name == max(run.path.name for run in runs)
    assert len(parsed) == 1


def study_of(folder: Path, count: int) -> Study:
    folder.mkdir(exist_ok=True)
    study = Study(folder / f"{count}.db", "s", METRIC, build_pruner("median", None, 9), seed=0)
    study.fill([Proposal(str(number), {"seed": number}) for number in range(count)], {})
    return study


def test_a_look_at_a_study_reads_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(tmp_path, 12)
    assert [trial.state.name for trial in study.trials()] == ["WAITING"] * 12
    read: list[int] = []
    original = RDBStorage._build_frozen_trial_from_trial_model

    def build(self: RDBStorage, trial: Any) -> Any:
        read.append(trial.trial_id)
        return original(self, trial)

    monkeypatch.setattr(RDBStorage, "_build_frozen_trial_from_trial_model", build)
    for number in (3, 0, 7):
        assert study.take(study.trials()[number], "here", "this machine")
    assert [trial.number for trial in study.trials() if trial.state.name == "RUNNING"] == [0, 3, 7]
    for epoch in (1, 2):
        study.report(3, epoch, 0.5)
    study.finish(3, [0.5])
    study.prune(7, None)
    states = [trial.state.name for trial in study.trials()]
    assert [states[number] for number in (0, 3, 7)] == ["RUNNING", "COMPLETE", "PRUNED"]
    assert states.count("WAITING") == 9
    assert len(read) < 24
    read.clear()
    assert study.trials()[3].values == [0.5]
    assert read == [1], "only the running trial"
    monkeypatch.undo()
    other = Study(tmp_path / "12.db", "s", METRIC, build_pruner("median", None, 9), seed=0)
    assert [trial.state.name for trial in other.trials()] == states
    study._study.add_trials([other.trials()[5]])
    assert len(other._study.get_trials()) == 13, "a trial that was added later is seen"


def test_trials_are_added_by_the_hundred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit waits for the disk."""
    study = study_of(tmp_path, 0)
    commits: list[object] = []
    sqlalchemy.event.listen(study.storage.engine, "commit", commits.append)
    proposals = [Proposal(str(number), {"seed": number}) for number in range(230)]
    assert study.fill(proposals, {}) == 230
    assert len(commits) < 10

    # An error in the second hundred leaves the first; the next start adds the rest.
    other = study_of(tmp_path / "other", 0)
    original = RDBStorage._get_prepared_new_trial

    def fails(self: RDBStorage, study_id: int, template: Any, session: Any) -> Any:
        if template.user_attrs["key"] == "150":
            raise KeyboardInterrupt
        return original(self, study_id, template, session)

    with monkeypatch.context() as patch:
        patch.setattr(RDBStorage, "_get_prepared_new_trial", fails)
        with pytest.raises(KeyboardInterrupt):
            other.fill(proposals, {})
    again = study_of(tmp_path / "other", 0)
    assert [trial.number for trial in again.trials()] == list(range(100))
    assert again.fill(proposals, {}) == 230
    assert [(trial.number, trial.user_attrs["key"]) for trial in again.trials()] == [
        (number, str(number)) for number in range(230)
    ]


def sweep_of(place: Path, run: Path, count: int) -> tuple[SweepFolder, list[Record]]:
    """A sweep whose trials have finished. Their folders were renamed."""
    folder = SweepFolder(place)
    folder.runs.mkdir(parents=True)
    (place / "trials").mkdir()
    (place / "sweep.json").write_text("{}")
    records = []
    for number in range(count):
        shutil.copytree(run, folder.runs / f"renamed{number}")
        (folder.runs / f"renamed{number}" / "run.json").write_text(json.dumps({"id": f"id{number}"}))
        record = Record(number=number, state="finished", parameters={}, overrides=[], run=f"runs/{number}")
        records.append(folder.write(record.model_copy(update={"run_id": f"id{number}"})))
    return folder, records


def test_runs_of_a_sweep_are_looked_up_without_reading_all(run_folder: Path, tmp_path: Path) -> None:
    few, many = (sweep_of(tmp_path / f"sweep{count}", run_folder, count) for count in (4, 32))
    for folder, records in (few, many):
        found = [find_run(folder, record) for record in records]
        assert [run.id for run in found if run is not None] == [record.run_id for record in records]
    one, other = (operations(lambda sweep=sweep: find_run(sweep[0], sweep[1][-1])) for sweep in (few, many))
    assert other < 1.5 * one
    folder, records = many
    (folder.runs / "renamed0").rename(folder.runs / "spare")
    (folder.runs / "renamed1").rename(folder.runs / "renamed0")
    (folder.runs / "spare").rename(folder.runs / "renamed1")
    found = [find_run(folder, record) for record in records[:2]]
    assert [run.path.name for run in found if run is not None] == ["renamed1", "renamed0"]


def test_a_comparison_of_a_sweep_grows_with_its_trials(tmp_path: Path) -> None:
    """Unfinished ones cost least, so other work weighs most."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("{}")
    sweeps = {count: sweep_of(tmp_path / f"sweep{count}", run, count)[0] for count in (8, 64)}

    def gathered(count: int) -> None:
        assert len(gather_sweep(sweeps[count].path).excluded) == count

    gathered(8)
    assert growth(gathered, 8, 64) < 1.2
