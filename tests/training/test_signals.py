"""Signals to a training: it saves, ends as one on all its processes, and resumes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gradspike.cli import train as launch
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import load_checkpoint
from helpers.forks import Forked
from helpers.signalled import start


def signal_at(process: Forked, line: str, signum: signal.Signals, group: bool = False) -> str:
    """Send a signal once a line that begins with `line` is printed. Returns all output."""
    output = ""
    for printed in process.stdout:
        output += printed
        if printed.startswith(line):
            os.killpg(process.pid, signum) if group else process.send_signal(signum)
            break
    return output + process.communicate()[0]


@pytest.mark.parametrize("line", ["run: ", "epoch 1/1"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_or_after_the_last(
    tiny: Callable[..., list[str]], tmp_path: Path, signum: signal.Signals, line: str
) -> None:
    """While the trainer starts, at the last checkpoint, in the final test: exit code never 0, always resumable."""
    process = start(tiny("trainer.max_epochs=1", "trainer.progress=lines"))
    output = signal_at(process, line, signum)
    run = RunFolder(next((tmp_path / "runs").glob("2*")))
    assert (process.returncode, run.state()) == (128 + signum, "interrupted"), output
    assert "Traceback" not in output
    assert f"resume={run.path}" in output
    assert launch.train(run.config(), [f"resume={run.path}"]) == 0


def test_a_signal_ends_a_whole_multirun(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    process = start(["-m", "seed=0,1,2", *tiny("trainer.max_epochs=50", "trainer.progress=lines")])
    output = signal_at(process, "epoch  1/50", signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT, output
    assert len(list((tmp_path / "runs").glob("2*"))) == 1
    assert "Traceback" not in output


@pytest.mark.parametrize("case", ["diverges", "ctrl-c"])
def test_two_processes_end_as_one(tiny: Callable[..., list[str]], tmp_path: Path, case: str) -> None:
    words = ["trainer.devices=2", "trainer.max_epochs=50", "trainer.progress=lines"]
    process = start(tiny(*words, *(["optimizer.lr=1e30"] if case == "diverges" else [])), start_new_session=True)
    if case == "diverges":
        output, code, state = process.communicate(timeout=120)[0], 1, "failed"
        assert output.count("Error: The loss became NaN or infinite") == 1, output
    else:
        output, code, state = signal_at(process, "epoch  1/50", signal.SIGINT, group=True), 130, "interrupted"
        assert output.count("Stopped by SIGINT after saving its state.") == 1, output
    run = RunFolder(next((tmp_path / "runs").glob("2*")))
    assert (process.returncode, run.state()) == (code, state), output
    assert "Traceback" not in output


def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(
    tiny: Callable[..., list[str]], tmp_path: Path
) -> None:
    words = tiny("trainer.devices=2", "trainer.max_epochs=4", "trainer.progress=lines", "checkpoint.every_n_steps=1000")
    unbroken = start([*words, f"runs_dir={tmp_path / 'unbroken'}"])
    output = unbroken.communicate()[0]
    assert unbroken.returncode == 0, output
    process = start(words)
    assert process.stdout is not None
    output = next(line for line in process.stdout if line.startswith("epoch 1/4"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "rank1\n"]
    os.kill(second[0], signal.SIGTERM)
    output += process.communicate()[0]
    run = RunFolder(next((tmp_path / "runs").glob("2*")))
    assert (process.returncode, run.state()) == (128 + signal.SIGTERM, "interrupted"), output
    assert output.count("after saving its state") == 1, output
    assert "Traceback" not in output
    assert load_checkpoint(run.last)["epoch"] < 3
    resumed = start([f"resume={run.path}"], ranks=2)
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output
    states = [
        load_checkpoint(RunFolder(next(tmp_path.glob(f"{name}/2*"))).last)["state_dict"]
        for name in ("unbroken", "runs")
    ]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
