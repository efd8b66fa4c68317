"""The processes that gradspike starts end together and report the reason."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from gradspike.errors import Interrupted
from gradspike.runs.folder import RunFolder
from gradspike.training.callbacks.interrupt import SignalGuard
from gradspike.training.place import Place
from helpers.forks import fork_server


@pytest.mark.parametrize(("rank", "line"), [(0, "run: "), (1, "epoch  1/99")])
def test_no_process_outlives_another_that_was_killed(
    tiny: Callable[..., list[str]], tmp_path: Path, rank: int, line: str
) -> None:
    """Kill the first process while the second starts, and the second one during training."""
    words = ["trainer.devices=2", "trainer.max_epochs=99", "trainer.progress=lines", "model.width=2", "time_steps=2"]
    first = fork_server().start("train", *tiny(*words), ranks=2)
    assert any(printed.startswith(line) for printed in first.stdout)
    other = child_of(first.pid)
    killed = time.monotonic()
    os.kill((first.pid, other)[rank], signal.SIGKILL)
    output = first.communicate(timeout=60)[0]
    while Path(f"/proc/{other}").exists():
        assert time.monotonic() < killed + 10
        time.sleep(0.02)
    assert time.monotonic() < killed + 10
    assert "Traceback" not in output
    assert "gloo" not in output
    if rank:
        sentence = "Rank 1 was killed by SIGKILL, which the system also does when memory runs out."
        assert output.splitlines()[-1] == f"Error: {sentence}"
        assert first.poll() == 128 + signal.SIGKILL
        status = json.loads((RunFolder(next((tmp_path / "runs").glob("2*"))).path / "status.json").read_text())
        assert (status["state"], status["reason"]) == ("failed", f"RankLost: {sentence}")


def test_a_closed_terminal_stops_a_run_except_under_nohup() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with SignalGuard(), pytest.raises(Interrupted, match="SIGHUP") as error:
            os.kill(os.getpid(), signal.SIGHUP)
        assert error.value.exit_code == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with SignalGuard():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def child_of(process: int) -> int:
    """The second rank of a process, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "rank1\n":
                return int(child)
        time.sleep(0.02)
    raise AssertionError("no child")


def stuck(patient: bool, reached: Event) -> None:
    """Wait as in a collective operation without its peers: one call, during which Python runs no handler."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with SignalGuard(Place(world_size=2)) as guard:
        guard.on_end = lambda error: print(f"ended: {error}", flush=True)
        if patient:
            guard.wait()
        reached.set()
        store.get("never")


@pytest.mark.parametrize("patient", [False, True])
def test_a_process_that_waits_for_dead_ranks_still_stops(patient: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """By the first signal, or by the second one while it trains and would save after the first."""
    context = multiprocessing.get_context("fork")
    reached = context.Event()
    process = context.Process(target=stuck, args=(patient, reached))
    process.start()
    assert reached.wait(60)
    for _ in range(1 + patient):
        time.sleep(0.3)
        assert process.is_alive()
        os.kill(process.pid or 0, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 128 + signal.SIGTERM
    assert capfd.readouterr().out == "ended: Stopped by SIGTERM without saving its state.\n"
