"""Loader processes that die or run out of resources end an epoch with a one-sentence error; it never hangs."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
import torch

from gradspike.data.loader import LoaderError, loader_failure
from helpers.command import execute
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


@pytest.mark.parametrize("how", ["killed", "exit"])
def test_a_dead_worker_is_one_sentence(how: str) -> None:
    path = os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])
    finished = execute(sys.executable, "-m", "helpers.failing_loader", how, timeout=60, PYTHONPATH=path)
    assert "most often because memory ran out: lower dataset.workers" in finished.stdout, finished.stderr
    # PyTorch's signal handler may be first; its error is known wherever it appears.
    assert finished.stdout.partition(" ")[0] in ("LoaderError", "RuntimeError")


def test_without_failures_workers_and_the_main_process_fetch_the_same() -> None:
    for one, two in zip(loader("never"), loader("never", workers=0), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in ("input", "label", "index"))


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
