"""Whole sweeps with real trainings: kills, failures, pruning, several runners, jobs of a cluster, W&B's agent."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradspike.runs.folder import RunFolder
from gradspike.tools.compare.sweeps import gather_sweep
from gradspike.tools.sweep.file import Metric
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.study import Study, build_pruner
from gradspike.tools.sweep.trial import find_run
from helpers.command import ROOT, TINY, execute, here
from helpers.forks import Forked, fork_server

COMMAND = ["${env}", "${interpreter}", "${program}", "logger=wandb", "${args_no_hyphens}"]
PATIENCE = 180.0


AWKWARD = "what? #1 100% 'it' {is} [b]"
"""A name with characters that are special in URLs, Hydra's grammar, shells and rich."""


def sweep_words(folder: Path, data: Path, parameters: dict[str, Any], *arguments: str, **keys: Any) -> list[str]:
    """The command line of a sweep of tiny trainings. Its file and folder have an awkward name."""
    constants = dict(word.split("=") for word in TINY if not word.startswith("trainer.progress"))
    listed = {name: {"value": yaml.safe_load(value)} for name, value in constants.items()}
    listed |= {name: {"values": values} for name, values in parameters.items()}
    whole = {
        "program": "src/train.py",
        "method": "grid",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        **keys,
        "parameters": listed,
        "command": COMMAND,
    }
    file = folder / f"{AWKWARD}.yaml"
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    place = [] if any(word.startswith("folder=") for word in arguments) else [f"folder={folder / AWKWARD}"]
    return ["sweep", str(file), f"data_dir={data}", *place, *arguments]


@pytest.fixture
def sweep(tmp_path: Path, data_dir: Path) -> Callable[..., list[str]]:
    """`sweep({parameters}, *arguments, key=...)`: the command line of a sweep of tiny trainings."""
    return lambda parameters, *arguments, **keys: sweep_words(tmp_path, data_dir, parameters, *arguments, **keys)


def fork(words: list[str], log: Path, cwd: Path = ROOT) -> Forked:
    """`gradspike <words>`; runner and trials are forks that need not import everything."""
    return fork_server().start(*words, log=log, cwd=cwd)


def wait_for(what: Callable[[], Any], said: Path) -> None:
    """Wait until `what` is true; fails with the runner's output."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.1)


def has(file: Path, *texts: str) -> bool:
    return file.is_file() and all(text in file.read_text() for text in texts)


def records(folder: SweepFolder) -> dict[int, Record]:
    found = [folder.record(int(path.name)) for path in (folder.path / "trials").iterdir()]
    return {record.number: record for record in found if record is not None}


def runs(folder: SweepFolder) -> list[RunFolder]:
    return [RunFolder(path) for path in sorted(folder.runs.iterdir())]


def test_kills_and_ctrl_c_lose_nothing(
    sweep: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 the runner, then a trial, then Ctrl-C: every start continues, and each trial has one run."""
    words = sweep({"seed": [0, 1]}, "gpus=4,7", "trainer.max_epochs=14")
    folder = SweepFolder(tmp_path / AWKWARD)
    said = [tmp_path / f"said{number}" for number in range(3)]

    runner = fork(words, said[0])
    wait_for(lambda: has(folder.log(0), " 2/14") and has(folder.log(1), " 2/14"), said[0])
    runner.kill()
    runner.wait()
    before = records(folder)
    assert sorted(record.gpus for record in before.values()) == [("4",), ("7",)]
    pids = [record.pid or 0 for _, record in sorted(before.items())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # they keep running; paused, so that even a slow runner finds them alive

    runner = fork(words, said[1])
    wait_for(lambda: has(said[1], "trial 0  seed=0  still running", "trial 1  seed=1  still running"), said[1])
    os.kill(pids[0], signal.SIGKILL)
    os.kill(pids[1], signal.SIGCONT)
    wait_for(lambda: has(said[1], "trial 0  seed=0  resumes runs/"), said[1])
    assert has(said[1], "trial 0  seed=0  retried (1 of 1): ended while no runner was watching")
    wait_for(lambda: has(folder.log(0), "resumed at epoch"), said[1])
    runner.send_signal(signal.SIGINT)
    assert runner.wait(PATIENCE) == 128 + signal.SIGINT, said[1].read_text()
    assert has(said[1], "To continue: ")
    assert records(folder)[0].state == "interrupted"
    assert not list((folder.path / "runners").iterdir())

    assert fork(words, said[2]).wait(PATIENCE) == 0, said[2].read_text()
    assert {record.state for record in records(folder).values()} == {"finished"}
    assert len(runs(folder)) == 2
    assert records(folder)[0].attempts == 3
    assert records(folder)[1].attempts <= 2
    for record in records(folder).values():
        run = RunFolder(folder.path / str(record.run))
        epochs = [line["epoch"] for line in map(json.loads, run.metrics.open()) if "epoch" in line]
        assert epochs == list(range(14))
        assert record.value == run.summary()["val"]["last"]["accuracy"]
    code, out, _ = here(words, capsys)
    assert code == 0
    assert f"{AWKWARD}: 2 trials: 2 finished" in out
    accuracies = [run.summary()["test"]["last"]["accuracy"] for run in runs(folder)]
    mean, sd = 100 * statistics.fmean(accuracies), 100 * statistics.stdev(accuracies)
    assert re.search(rf"│ all +│ +2 │ +{mean:.2f} ± {sd:.2f} % │", out)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> tuple[SweepFolder, list[str], str]:
    """A sweep with a finished, a failed and a pruned trial: its folder, its command, and what it printed."""
    folder = tmp_path_factory.mktemp("ended")
    stop_early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    words = sweep_words(
        folder, data_dir, {"optimizer.lr": [0.1, 1e30, 1e-6]},
        "workers=2", "trainer.max_epochs=7", early_terminate=stop_early,
    )  # fmt: skip
    said = tmp_path_factory.mktemp("said") / "log"
    code = fork(words, said, folder).wait(PATIENCE)
    assert code == 1, said.read_text()
    assert sorted(path.name for path in folder.iterdir()) == sorted([AWKWARD, f"{AWKWARD}.yaml"])  # and nothing else
    return SweepFolder(folder / AWKWARD), words, said.read_text()


def test_failing_pruned_and_finished_trials(
    ended: tuple[SweepFolder, list[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, words, said = ended
    found = records(folder)
    assert [found[number].state for number in range(3)] == ["finished", "failed", "pruned"]
    assert [found[number].attempts for number in range(3)] == [1, 2, 1]
    assert "retried (1 of 1)" in said
    assert "trial 1 failed after 2 attempts" in said
    assert f"{AWKWARD}: 3 trials: 1 finished, 1 pruned, 1 failed" in said
    assert said.count("optimizer.lr (now 1e+30)") >= 2  # the reason, and the end of the log
    pruned = RunFolder(folder.path / str(found[2].run))
    assert pruned.state() == "interrupted"
    assert pruned.last.is_file()
    assert not (pruned.path / "summary.json").exists()
    study = Study(folder.path / "study.db", AWKWARD, METRIC, build_pruner(None, None, 1), 0)
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "RUNNING", "PRUNED"]

    code, _, error = here([*words, "dataset.batch_size=32"], capsys)
    assert code == 2
    assert "every trial: dataset.batch_size: was not set, is dataset.batch_size=32" in error


def test_names_of_folders_say_nothing_of_trials(ended: tuple[SweepFolder, list[str], str], tmp_path: Path) -> None:
    """After renaming, runs and the sweep folder are identified by their contents."""
    moved = SweepFolder(Path(shutil.copytree(ended[0].path, tmp_path / "moved", copy_function=shutil.copy2)))
    for number, run in enumerate(runs(moved)):
        run.path.rename(moved.runs / f"run{number}")
    found = gather_sweep(moved.path)
    assert len(found.runs) == 1
    assert sorted(one.reason.partition(":")[0] for one in found.excluded)[0].startswith("failed")
    assert not any("belongs to no trial" in one.reason for one in found.excluded)
    for record in records(moved).values():
        run = find_run(moved, record)
        assert run is not None
        assert run.config().optimizer.lr == record.parameters["optimizer.lr"]
    moved.create("moved", "study.db")
    study = Study(moved.path / "study.db", moved.study, METRIC, build_pruner(None, None, 1), 0)
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "RUNNING", "PRUNED"]
    shutil.rmtree(next(run.path for run in runs(moved) if run.state() == "finished"))
    assert any("is missing" in one.reason for one in gather_sweep(moved.path).excluded)


METRIC = Metric(name="val/accuracy", goal="maximize")


def test_runners_share_a_study(
    sweep: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two runners share a folder; a third has its own, as on another machine. Each trial is trained once.

    Three tasks of srun or torchrun are three runners; their trials are not ranks.
    """
    place = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "3", "TORCHELASTIC_RUN_ID": "x", "MASTER_PORT": "1"}
    place |= {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
    for name, value in {**place, "MASTER_ADDR": "x", "SLURM_NTASKS": "3", "SLURM_STEP_NUM_TASKS": "3"}.items():
        monkeypatch.setenv(name, value)
    storage = f"storage=sqlite:///{tmp_path / 'shared.db'}"
    folders = [tmp_path / "here" / "same", tmp_path / "here" / "same", tmp_path / "there" / "same"]
    words = [sweep({"seed": [0, 1, 2]}, storage, "trainer.max_epochs=1", f"folder={path}") for path in folders]
    said = [tmp_path / f"said{number}" for number in range(3)]
    runners = [fork(line, file) for line, file in zip(words, said, strict=True)]
    for runner, file in zip(runners, said, strict=True):
        assert runner.wait(PATIENCE) == 0, file.read_text()
    one, other = SweepFolder(folders[0]), SweepFolder(folders[2])
    assert len(runs(one)) + len(runs(other)) == 3
    assert {record.state for record in [*records(one).values(), *records(other).values()]} == {"finished"}
    assert {run.config().seed for run in [*runs(one), *runs(other)]} == {0, 1, 2}
    _, out, _ = here([*words[2][:-1], f"folder={tmp_path / 'elsewhere' / 'same'}"], capsys)
    assert "3 trials: 3 finished" in out
    code, _, error = here([word for word in words[0] if not word.startswith("storage=")], capsys)
    assert code == 2
    assert "Use the same storage=" in error


def test_a_job_that_is_preempted_goes_on(sweep: Callable[..., list[str]], tmp_path: Path) -> None:
    """Slurm's path through submitit's local executor: SIGUSR2 saves and stops the training, which is then resumed."""
    words = sweep({"seed": [0]}, "executor=submitit-local", "trainer.max_epochs=8")
    folder, said = SweepFolder(tmp_path / AWKWARD), tmp_path / "said"
    runner = fork(words, said)  # the job is a process of its own
    wait_for(lambda: has(folder.log(0), " 2/8"), said)
    record = folder.record(0)
    assert record is not None
    assert record.job is not None
    job = int(Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(job, signal.SIGUSR2)
    assert runner.wait(PATIENCE) == 0, said.read_text()
    record = folder.record(0)
    assert record is not None
    assert (record.state, record.attempts, len(runs(folder))) == ("finished", 2, 1)
    assert has(folder.log(0), "resumed at epoch")


def test_wandb_agent_runs_a_trial(sweep: Callable[..., list[str]], tmp_path: Path, data_dir: Path) -> None:
    """A trial run by the code of `wandb agent`: its command, its environment, and the run it reports."""
    script = tmp_path / "agent.py"
    script.write_text(
        "import queue, sys, yaml\n"
        "from wandb.wandb_agent import Agent\n"
        "agent = Agent(api=None, queue=queue.Queue(), sweep_id='s1')\n"
        "config = yaml.safe_load(open(sys.argv[1]))\n"
        "agent._sweep_command = config['command']\n"
        "values = {k: v.get('value', v.get('values', [None])[0]) for k, v in config['parameters'].items()}\n"
        "args = {key: {'value': value} for key, value in values.items()}\n"
        "run = {'type': 'run', 'run_id': 'abc123', 'program': config['program'], 'args': args}\n"
        "answer = agent._process_command(run)\n"
        "assert 'exception' not in answer, answer\n"
        "sys.exit(agent._run_processes['abc123'].wait())\n"
    )
    file = sweep({"method": ["psg"], "data_dir": [str(data_dir)], "runs_dir": [str(tmp_path / "runs")]})[1]
    result = execute(
        sys.executable, str(script), file, WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_SWEEP_ID="s1",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    run = RunFolder(next((tmp_path / "runs").iterdir()))
    assert run.state() == "finished"
    said = run.log.read_text()
    assert said.count("W&B") == said.count("INFO W&B: ") == 2  # where the record is, and no failure
    assert list(run.path.glob("wandb/offline-run-*-abc123"))  # the id that the agent gave out
