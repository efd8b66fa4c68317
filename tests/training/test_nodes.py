"""Two machines are one: two shells and torchrun, a stop, and a death on the second one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradspike.runs.folder import RunFolder
from helpers.command import GRADSPIKE, TINY, command
from helpers.runs import assert_same_run
from helpers.two_nodes import ADDRESSES, Nodes

pytestmark = pytest.mark.slow
PORT = "29500"
SECONDS = 600
FIRST_ADDRESS = ADDRESSES[0]
ON_TWO = ("trainer.devices=1", "trainer.num_nodes=2")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes().connected() as connected:
        yield connected


def shells(nodes: Nodes, folder: Path, *words: str) -> list[subprocess.Popen[bytes]]:
    """The same command in a shell of each node."""
    together = {"MASTER_ADDR": FIRST_ADDRESS, "MASTER_PORT": PORT}
    started = [*GRADSPIKE, "train", *words]
    return [
        nodes.start(node, started, folder, folder / f"node_{node}.log", NODE_RANK=str(node), **together)
        for node in (0, 1)
    ]


def codes(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """The exit codes of both nodes."""
    try:
        return [process.wait(SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()


def one_run(folder: Path) -> RunFolder:
    (config,) = folder.glob("runs/*/config.yaml")
    return RunFolder(config.parent)


def wait_for_epoch(folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait until the first epoch is recorded."""
    while not any('"epoch"' in file.read_text() for file in folder.glob("runs/*/metrics.jsonl")):
        assert all(process.poll() is None for process in processes), (folder / "node_0.log").read_text()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def words(data_dir: Path) -> list[str]:
    return [*TINY, f"data_dir={data_dir}", "runs_dir=runs", "method=ds_atgo", "trainer.ema=0.9", "trainer.max_epochs=3"]


@pytest.fixture(scope="module")
def of_one_machine(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of two processes on one machine."""
    folder = tmp_path_factory.mktemp("machine")
    done = command("train", *words, "trainer.devices=2", cwd=folder, timeout=SECONDS, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return one_run(folder)


def test_shells_on_two_nodes_stop_and_resume(
    nodes: Nodes, words: list[str], of_one_machine: RunFolder, tmp_path: Path
) -> None:
    processes = shells(nodes, tmp_path, *words, *ON_TWO)
    wait_for_epoch(tmp_path, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert codes(processes) == [143, 143]
    assert "Stopped by SIGTERM after saving its state." in (tmp_path / "node_0.log").read_text()
    assert codes(shells(nodes, tmp_path, f"resume={one_run(tmp_path).path}")) == [0, 0]
    assert_same_run(one_run(tmp_path), of_one_machine)


def test_torchrun_on_two_nodes(nodes: Nodes, words: list[str], of_one_machine: RunFolder, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint={FIRST_ADDRESS}:{PORT}"]
    processes = []
    for node, address in enumerate(ADDRESSES):
        # torchrun compares the endpoint with this machine's name, which is not that of a node.
        of_node = [f"--local-addr={address}", f"--rdzv-conf=is_host={node == 0}"]
        started = [*launcher, *of_node, "-m", "gradspike", "train", *words, *ON_TWO]
        processes.append(nodes.start(node, started, tmp_path, tmp_path / f"node_{node}.log"))
    assert codes(processes) == [0, 0], (tmp_path / "node_0.log").read_text()
    assert_same_run(one_run(tmp_path), of_one_machine)


def test_a_node_that_dies_ends_the_other(nodes: Nodes, words: list[str], tmp_path: Path) -> None:
    processes = shells(nodes, tmp_path, *words, *ON_TWO, "trainer.max_epochs=500")
    wait_for_epoch(tmp_path, processes)
    processes[1].kill()
    assert codes(processes) == [1, -9]
    log = (tmp_path / "node_0.log").read_text()
    assert "Traceback" not in log
    assert log.rstrip().splitlines()[-1].startswith("Error: Rank 1 ")
    assert json.loads((one_run(tmp_path).path / "status.json").read_text())["state"] == "failed"
