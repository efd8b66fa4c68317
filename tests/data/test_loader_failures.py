"""Loader processes that die or run out of resources end an epoch with a one-sentence error; it never hangs."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from gradspike.data import sockets
from gradspike.data.loader import LoaderError, loader_failure
from gradspike.data.source import Samples
from helpers.command import TINY, command, execute
from helpers.failing_loader import loader
from helpers.limits import no_file_may_grow

TESTS = str(Path(__file__).parents[1])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            "shm",
            r"ran out of shared memory \(/dev/shm\): lower dataset.workers or dataset.batch_size, or make it larger",
        ),
        ("files", r"ran out of open files: raise the limit \(ulimit -n"),
    ],
)
def test_exhausted_resources_give_one_sentence(how: str, said: str) -> None:
    with pytest.raises(LoaderError, match=said):
        list(loader(how))


def test_processes_that_cannot_start_leave_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """With /dev/shm full, torch's iterator is half started; Python collected it with a traceback of its own."""
    collected: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", collected.append)
    with pytest.raises(LoaderError, match=r"ran out of shared memory \(/dev/shm\)") as error, no_file_may_grow():
        list(loader("never"))
    del error
    gc.collect()
    assert not collected


def test_a_fault_of_the_code_stays_a_traceback() -> None:
    with pytest.raises(RuntimeError, match="a fault of its own"):
        list(loader("bug"))


@pytest.mark.parametrize("how", ["files", "bug"])
def test_a_failed_epoch_ends_its_workers_and_another_may_follow(how: str) -> None:
    """Left to the garbage collector, each worker took five seconds to end, in the middle of something else."""
    failing = loader(how)
    for _ in range(2):
        with pytest.raises((LoaderError, RuntimeError)):
            list(failing)
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("how", ["killed", "exit"])
def test_a_dead_worker_is_one_sentence(how: str) -> None:
    path = os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])
    finished = execute(sys.executable, "-m", "helpers.failing_loader", how, timeout=60, PYTHONPATH=path)
    assert "most often because memory ran out: lower dataset.workers" in finished.stdout, finished.stderr
    # PyTorch's signal handler may be first; its error is known wherever it appears.
    assert finished.stdout.partition(" ")[0] in ("LoaderError", "RuntimeError")


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender of a signal is not known here")
def test_workers_leave_signals_to_the_training_which_may_still_end_them() -> None:
    """Slurm and terminals signal all processes of a training, which needs more batches until it has saved."""
    batches = iter(loader("never", workers=2))
    fetched = [next(batches), next(batches)]  # one of each worker, so both have started
    workers = multiprocessing.active_children()
    for worker, name in itertools.product(workers, ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")):
        # From another process than the parent.
        subprocess.run(["/bin/sh", "-c", f"kill -{name[3:]} {worker.pid}"], check=True)
    fetched += batches
    assert len(fetched) == len(list(loader("never", workers=0)))
    for worker in workers:
        worker.terminate()
        worker.join(60)
        assert worker.exitcode == 0


def test_without_failures_workers_and_the_main_process_fetch_the_same() -> None:
    for one, two in zip(loader("never"), loader("never", workers=0), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in ("input", "label", "index"))


def test_a_worker_that_is_started_afresh_maps_the_files_again(tmp_path: Path) -> None:
    """On macOS, workers are not forked: the whole data set was sent to each of them."""
    whole = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    for name, array in (("c", whole), ("f", np.asfortranarray(whole))):
        np.save(tmp_path / f"{name}.npy", array)
        samples = Samples(
            np.load(tmp_path / f"{name}.npy", mmap_mode="r"), np.zeros(100, np.int64), np.zeros(100, np.uint8)
        )
        sent = bytes(ForkingPickler.dumps(samples))
        assert len(sent) < 3000
        received = pickle.loads(sent)
        assert isinstance(received.inputs, np.memmap)
        assert not received.inputs.flags.writeable
        assert (received.inputs == whole).all()
        for part in (samples.inputs[5:9], samples.inputs[:, 1], samples.inputs.view("i1")):
            assert (pickle.loads(bytes(ForkingPickler.dumps(part))) == part).all()


@pytest.mark.parametrize("too_many", [0, 1])
def test_sockets_have_room_exactly_where_the_system_allows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_many: int
) -> None:
    """Processes of the loader died of `AF_UNIX path too long`, and the training waited for ever."""
    missing = sockets.LONGEST - sockets.NAME - len(str(tmp_path)) - 1 - len("/pymp-12345678") + too_many
    folder = tmp_path / ("x" * missing) / "pymp-12345678"
    folder.mkdir(parents=True)
    monkeypatch.setattr("multiprocessing.util.get_temp_dir", lambda: str(folder))
    with socket.socket(socket.AF_UNIX) as one:
        if too_many:
            with pytest.raises(OSError, match="path too long"):
                one.bind(str(folder / "listener-12345678"))
            with pytest.raises(
                LoaderError, match=rf"path of {len(str(folder.parent))} bytes.* Set TMPDIR to a shorter"
            ):
                sockets.check_socket_paths(1)
        else:
            one.bind(str(folder / "listener-12345678"))
            sockets.check_socket_paths(1)
    sockets.check_socket_paths(0)


def test_a_long_folder_for_temporary_files_is_refused_before_the_run_has_a_folder(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 110)
    long.mkdir()
    words = [*TINY, "dataset=digits", f"data_dir={tmp_path / 'data'}", f"runs_dir={tmp_path / 'runs'}"]
    done = command("train", *words, "dataset.workers=1", timeout=60, TMPDIR=str(long))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"Error: dataset.workers=1: the folder for temporary files, {long}, has a path of ")
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's", "/dev/shm"),
        ("unable to write to file </torch_12_34>: No space left on device (28)", "/dev/shm"),
        ("unable to allocate shared memory(shm) for file </torch_1>: Success (0)", "/dev/shm"),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "A process of the loader died, most often"),
        ("DataLoader worker (pid 5902) is killed by signal: Killed. ", "died (signal: Killed), most often"),
        ("received 0 items of ancdata", "open files"),
        ("CUDA error: out of memory", None),
    ],
)
def test_what_pytorch_says_is_known_wherever_it_appears(message: str, said: str | None) -> None:
    found = loader_failure(RuntimeError(message))
    assert (found is None) if said is None else (found is not None and said in found)
