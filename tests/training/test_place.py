"""The rank of a process follows from what started it, not from variables of other programs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradspike.config.schema import ExperimentConfig, TrainerConfig
from gradspike.errors import ConfigError, UserError
from gradspike.runs.folder import RunFolder
from gradspike.training.place import ALONE, MPI, PARENT, Place, find_place, first_node
from gradspike.training.processes import _listens, meet
from helpers.command import command, execute, here
from helpers.forks import fork_server
from helpers.runs import train
from helpers.warm import warm_python

COMMAND = ["gradspike", "train", "seed=1", "runs_dir=my runs"]
SLURM = {"SLURM_JOB_ID": "912345", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}
SLURM |= {"SLURM_JOB_NODELIST": "gpu[03-04]"}
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
NAMES = (*SLURM, *TORCHRUN, PARENT, "NODE_RANK", "GROUP_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_NNODES")
NAMES += ("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "LOCAL_WORLD_SIZE", *MPI)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Place]:
    """The place of a process with these variables."""

    def found(devices: int = 1, nodes: int = 1, **variables: str) -> Place:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return find_place(TrainerConfig(max_epochs=1, devices=devices, num_nodes=nodes), COMMAND)

    return found


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "1"},
        {"LOCAL_RANK": "3"},
        {"SLURM_PROCID": "2"},
        {"WORLD_SIZE": "8"},
        {"NODE_RANK": "1", "MASTER_PORT": "1"},
        {"TORCHELASTIC_RUN_ID": "x"},  # torchrun always sets WORLD_SIZE, too
        TORCHRUN,
        SLURM | {"SLURM_NTASKS": "1"},
        SLURM | {"SLURM_NTASKS": "4"},  # the batch script itself, not a task of srun
        {PARENT: str(os.getppid()), "LOCAL_RANK": "1"},
        {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "PMI_SIZE": "4", "PMI_RANK": "3"},
        {"RANK": "", "WORLD_SIZE": "", "SLURM_JOB_ID": "", "TORCHELASTIC_RUN_ID": ""},
    ],
)
def test_one_device_is_alone(place: Callable[..., Place], variables: dict[str, str]) -> None:
    assert place(**variables) == ALONE


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "1"},
        {"LOCAL_RANK": "1", "NODE_RANK": "4", "MASTER_PORT": "29500"},
        TORCHRUN | {"WORLD_SIZE": "4"},
        SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {"SLURM_JOB_ID": "9", "SLURM_NTASKS": "2"},  # salloc's shell is not a task
        {PARENT: str(os.getppid())},
        {PARENT: "1", "LOCAL_RANK": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"},
    ],
)
def test_several_devices_are_started_by_us(place: Callable[..., Place], variables: dict[str, str]) -> None:
    assert place(devices=2, **variables) == Place(world_size=2, starts_others=True)


def test_the_processes_that_we_start(place: Callable[..., Place]) -> None:
    ours = {PARENT: str(os.getppid()), "LOCAL_RANK": "1", "NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"}
    for around in ({}, SLURM | {"SLURM_NTASKS": "1"}, TORCHRUN | {"TORCHELASTIC_RUN_ID": "x"}):
        found = place(devices=2, nodes=2, **(around | ours))
        assert found == Place(3, 1, 1, 4, "a", 7, started_by_us=True)


def test_the_tasks_of_srun(place: Callable[..., Place]) -> None:
    found = place(devices=2, **SLURM, SLURM_NTASKS="2")
    assert found == Place(1, 1, 0, 2, "gpu03", 15000 + 3450)
    assert place(devices=2, **SLURM, SLURM_NTASKS="2", SLURM_STEP_ID="3").port == 15000 + 3453
    assert place(devices=2, **SLURM, SLURM_NTASKS="2", MASTER_ADDR="x", MASTER_PORT="5") == Place(1, 1, 0, 2, "x", 5)
    # The tasks of the step count, not those of the job.
    assert place(devices=2, **SLURM, SLURM_NTASKS="8", SLURM_STEP_NUM_TASKS="2") == found


def test_the_processes_of_torchrun(place: Callable[..., Place]) -> None:
    expected = Place(1, 1, 0, 2, "127.0.0.1", 29511)
    assert place(devices=2, **TORCHRUN) == expected
    # torchrun inside a Slurm job, one task a node
    assert place(devices=2, **TORCHRUN, **SLURM, SLURM_NTASKS="1", TORCHELASTIC_RUN_ID="x") == expected


@pytest.mark.parametrize(
    ("devices", "variables", "found"),
    [
        (2, SLURM | {"SLURM_NTASKS": "3"}, "this Slurm job has 3 tasks"),
        (4, SLURM | {"SLURM_NTASKS": "2"}, "this Slurm job has 2 tasks"),
        (1, SLURM | {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}, "this Slurm job has 2 tasks"),
        (2, SLURM | {"SLURM_NTASKS": "2", "SLURM_NNODES": "2"}, "2 tasks of this Slurm job run on 2 nodes"),
        (2, SLURM | {"SLURM_NTASKS": "2", "SLURM_LOCALID": "2"}, "2 tasks of this Slurm job run on 1 node"),
        (1, TORCHRUN | {"TORCHELASTIC_RUN_ID": "x"}, "torchrun started 2"),
        (4, TORCHRUN | {"TORCHELASTIC_RUN_ID": "x"}, "torchrun started 2"),
        # Each process of mpirun would start processes of its own.
        *((2, {name: "2"}, f"mpirun started 2 ({name})") for name in MPI),
        (2, {"OMPI_COMM_WORLD_SIZE": "2"} | SLURM | {"SLURM_NTASKS": "1"}, "mpirun started 2"),
    ],
)
def test_another_number_of_processes_is_refused_with_the_line_to_type(
    place: Callable[..., Place], devices: int, variables: dict[str, str], found: str
) -> None:
    with pytest.raises(ConfigError) as error:
        place(devices=devices, **variables)
    assert found in str(error.value)
    srun = f"srun --nodes=1 --ntasks-per-node={devices} " if "this Slurm job" in found else ""
    assert srun in str(error.value)
    assert "gradspike train seed=1 'runs_dir=my runs'" in str(error.value)


def test_torchrun_with_other_processes_on_a_node(place: Callable[..., Place]) -> None:
    assert place(devices=2, **TORCHRUN, LOCAL_WORLD_SIZE="2").rank == 1
    with pytest.raises(ConfigError, match=r"torchrun started 1 of them on this node\. Start torchrun with"):
        place(devices=2, **TORCHRUN, LOCAL_WORLD_SIZE="1")


@pytest.mark.parametrize("missing", ["NODE_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_several_nodes_without_a_launcher(place: Callable[..., Place], missing: str) -> None:
    variables = {"NODE_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    assert place(devices=2, nodes=2, **variables) == Place(2, 0, 1, 4, "node0", 29500, starts_others=True)
    del variables[missing]
    with pytest.raises(ConfigError, match=f"set {missing} there"):
        place(devices=2, nodes=2, **variables)


@pytest.mark.parametrize(
    ("nodes", "variables", "said"),
    [
        (1, TORCHRUN | {"RANK": "2"}, "RANK=2 must be less than 2, the number of processes with trainer.devices=2"),
        (1, TORCHRUN | {"LOCAL_RANK": "2"}, "LOCAL_RANK=2 must be less than 2, the number of processes of a node with"),
        (1, TORCHRUN | {"MASTER_PORT": "0"}, "MASTER_PORT=0 must be a port that all processes use"),
        (1, SLURM | {"SLURM_NTASKS": "2", "SLURM_PROCID": "5"}, "SLURM_PROCID=5 must be less than 2"),
        (1, SLURM | {"SLURM_NTASKS": "2", "MASTER_PORT": "0"}, "MASTER_PORT=0 must be a port"),
        (2, {"NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "NODE_RANK=2 must be less than trainer.num_n"),
        (2, {"NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "0"}, "MASTER_PORT=0 must be a port"),
    ],
)
def test_ranks_that_would_wait_for_ever(
    place: Callable[..., Place], nodes: int, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        place(devices=2, nodes=nodes, **variables)
    assert said in str(error.value)


def test_variables_that_are_no_numbers(place: Callable[..., Place]) -> None:
    with pytest.raises(ConfigError, match="SLURM_NTASKS=2x must be a whole number"):
        place(devices=2, **SLURM, SLURM_NTASKS="2x")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("gpu[03-04,07],cpu1", "gpu03"), ("a-b[1,2]", "a-b1"), ("n1,n2", "n1"), ("", "127.0.0.1")],
)
def test_first_node(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_a_wrong_number_of_tasks_leaves_no_folder(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    done = command("train", *tiny("trainer.devices=2"), **SLURM, SLURM_NTASKS="3")
    assert done.returncode == 2
    assert "srun --nodes=1 --ntasks-per-node=2" in done.stderr
    assert not list((tmp_path / "runs").glob("2*"))


@pytest.mark.parametrize("variables", [TORCHRUN, {"SLURM_PROCID": "1"}], ids=["torchrun", "slurm"])
def test_one_device_with_the_variables_of_another_rank_trains_and_records(
    tiny: Callable[..., list[str]], tmp_path: Path, variables: dict[str, str]
) -> None:
    server = fork_server(**variables)  # libraries read them when they are imported
    training = server.start("train", *tiny("trainer.max_epochs=1", "trainer.progress=lines"))
    output = training.communicate()[0]
    assert training.returncode == 0, output
    assert "epoch 1/1" in output
    assert "last epoch" in output
    run = RunFolder(next((tmp_path / "runs").glob("2*")))
    assert run.state() == "finished"
    assert run.timing.is_file()
    evaluation = server.start("evaluate", f"run={run.path}")
    output = evaluation.communicate()[0]
    assert evaluation.returncode == 0, output


def free_port() -> int:
    import socket

    with socket.socket() as listening:
        listening.bind(("", 0))
        return int(listening.getsockname()[1])


def test_a_rank_says_which_ones_are_missing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    with pytest.raises(UserError, match=r"No sign of ranks 1, 2 of 3 within .*srun"):
        meet(Place(world_size=3), free_port(), warn_after=0.2, give_up_after=0.6)
    said = [record.getMessage().partition(" (")[0] for record in caplog.records]
    assert said == ["Waiting for 2 of 3 processes: ranks 1, 2"]
    caplog.clear()
    with pytest.raises(UserError, match="No sign of rank 0 of 2"):
        meet(Place(rank=1, world_size=2), free_port(), warn_after=0.2, give_up_after=0.6)
    assert caplog.records[0].getMessage().startswith("Waiting for 1 of 2 processes: rank 0 (")


MEET = """
import os
import sys
import time
from gradspike.training.place import Place
from gradspike.training.processes import _listens, meet
import torch.distributed as dist

def rank(number):
    store = meet(Place(rank=number, world_size=2), int(sys.argv[1]), give_up_after=60)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[1])
    dist.init_process_group("gloo", rank=number, world_size=2)
    dist.barrier()
    os.write(1, b"met\\n")  # one write, whole beside that of the other process

late = os.fork()
if late == 0:
    rank(1)
    os._exit(0)  # gloo's thread may still drop a tensor, which aborts an interpreter that ends
time.sleep(1)
assert os.waitpid(late, os.WNOHANG) == (0, 0), "rank 1 did not wait"
rank(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(late, 0)[1]))
"""


def test_two_ranks_meet_whichever_comes_first() -> None:
    done = execute(*warm_python(), "-c", MEET, str(free_port()))
    assert (done.returncode, done.stdout) == (0, "met\nmet\n"), done.stderr


@pytest.mark.parametrize(
    ("rank", "codes"),
    [
        ("0", {signum: 128 + signum for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}),
        ("1", {signum: -signum for signum in (signal.SIGTERM, signal.SIGINT)}),
    ],
)
def test_a_waiting_rank_dies_of_a_signal(
    tiny: Callable[..., list[str]], tmp_path: Path, rank: str, codes: dict[signal.Signals, int]
) -> None:
    """One of two tasks; the other never starts. One such task for each signal, which wait side by side."""
    variables = SLURM | {"SLURM_NTASKS": "2", "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "MASTER_ADDR": "127.0.0.1"}
    processes = {}
    for signum in codes:
        words, port = tiny("trainer.devices=2", f"runs_dir={tmp_path / signum.name}"), free_port()
        processes[signum] = port, fork_server().start("train", *words, MASTER_PORT=str(port), **variables)
    deadline = time.monotonic() + 60
    for port, process in processes.values():
        # The first rank listens when it begins to wait; the other leaves no trace.
        while rank == "0" and not _listens("127.0.0.1", port):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
    time.sleep(0.3 if rank == "0" else 4)
    for signum, code in codes.items():
        process = processes[signum][1]
        process.send_signal(signum)
        output = process.communicate(timeout=20)[0]
        assert process.returncode == code, output
        assert "Traceback" not in output
        if rank == "0":
            run = RunFolder(next((tmp_path / signum.name).glob("2*")))
            assert run.state() == "interrupted"


def test_a_training_waits_no_longer_than_it_is_told(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    """One of two tasks; the other never starts."""
    variables = SLURM | {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1"}
    words = tiny("trainer.devices=2", "trainer.wait_seconds=0.5")
    training = fork_server().start("train", *words, MASTER_PORT=str(free_port()), **variables)
    output = training.communicate(timeout=60)[0]
    assert training.returncode == 1, output
    assert "No sign of rank 1 of 2 within" in output
    assert "trainer.wait_seconds=0.5" in output
    assert "Traceback" not in output
    assert RunFolder(next((tmp_path / "runs").glob("2*"))).state() == "failed"


def test_hpc_checkpoints_are_not_loaded(
    tiny: Callable[..., list[str]],
    tiny_config: Callable[..., ExperimentConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lightning would load `hpc_ckpt_*.ckpt` of the working folder in a Slurm job, in training and evaluation."""
    stray = train(tiny_config("trainer.max_epochs=1", "seed=5", f"runs_dir={tmp_path / 'other'}")).last.read_bytes()
    for name, value in (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).items():
        monkeypatch.setenv(name, value)
    results = []
    for name in ("without", "with"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        if name == "with":
            (folder / "hpc_ckpt_1.ckpt").write_bytes(stray)
        code, _, error = here(["train", *tiny("seed=1", f"runs_dir={folder / 'runs'}")], capsys)
        assert code == 0, error
        run = RunFolder(next((folder / "runs").glob("2*")))
        if name == "with":
            (run.path / "hpc_ckpt_7.ckpt").write_bytes(stray)
        code, _, error = here(["evaluate", f"run={run.path}", "checkpoint=best"], capsys)
        assert code == 0, error
        results.append((run.metrics.read_bytes(), (run.path / "evaluation_test.json").read_bytes()))
        assert not list(folder.glob("hpc_ckpt_2*"))
    assert results[0] == results[1]


def test_slurms_signal_saves_and_stops(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    job = SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    words = tiny("trainer.max_epochs=500", "trainer.progress=lines")
    process = fork_server().start("train", *words, cwd=tmp_path, **job)
    for line in process.stdout:
        if line.startswith("epoch   1/500"):
            break
    process.send_signal(signal.SIGUSR1)
    output = process.communicate(timeout=60)[0]
    run = RunFolder(next((tmp_path / "runs").glob("2*")))
    assert (process.returncode, run.state()) == (128 + signal.SIGUSR1, "interrupted"), output
    assert "after saving its state" in output
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]
