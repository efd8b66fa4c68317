"""Exhausted memory, disks and processes: one sentence with what to lower and where the state is, and no traceback."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gradspike.cli.reporting import reporting_errors
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.data.prepared.disk import free_space, size_text
from gradspike.exhausted import Exhausted, disk_is_full, not_written, one_sentence, why_exhausted
from gradspike.runs.folder import RunFolder
from gradspike.training import run as training
from helpers.command import TINY, here
from helpers.forks import fork_server
from helpers.limits import no_file_may_grow
from helpers.runs import at_batch, train

Compose = Callable[..., ExperimentConfig]
LOWER = (
    "Out of memory: lower dataset.batch_size=64, dataset.eval_batch_size=512 (validation and test), model.width=4 or "
    "time_steps=4, or cut batches into parts with trainer.accumulate=2."
)


Starved = Callable[..., tuple[int, str, str]]


@pytest.fixture
def starved(tmp_path: Path) -> Starved:
    """Runs a command in a process that `helpers.starved` has starved. Gives its exit code, output and errors."""

    def command(how: str, *words: str) -> tuple[int, str, str]:
        out, error = tmp_path / "out", tmp_path / "error"
        code = fork_server().start(*words, log=out, errors=error, starve=how).wait(240)
        return code, out.read_text(), error.read_text()

    return command


def torch_runs_out() -> None:
    torch.empty(2**50)


def numpy_runs_out() -> None:
    np.empty(2**58)


def python_runs_out() -> None:
    bytearray(2**62)


def gpu_runs_out() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 GiB. GPU 0 has a total capacity of ...")


@pytest.mark.parametrize("ends", [torch_runs_out, numpy_runs_out, python_runs_out, gpu_runs_out])
def test_memory_exhausted_during_training(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ends: Callable[[], None]
) -> None:
    config = tiny_config("checkpoint.every_n_steps=5", "probe.enabled=false")
    with monkeypatch.context() as patch:
        at_batch(patch, 8, ends)
        with pytest.raises(Exhausted) as error:
            train(config)
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    said = str(error.value)
    lower = LOWER.replace("memory", "memory on the GPU") if ends is gpu_runs_out else LOWER
    assert said.startswith(f"{lower} The last saved state is ")
    assert f"{run.last.name}. Once that is fixed, continue it with: " in said
    assert run.state() == "failed"
    log = run.log.read_text(encoding="utf-8")
    assert "Traceback" in log
    assert ends.__name__ in log
    assert "Traceback" not in capsys.readouterr().out
    command = shlex.split(said.rpartition("continue it with: ")[2])
    assert here(command[command.index("train") :], capsys)[0] == 0


def test_memory_exhausted_before_the_first_save(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    at_batch(monkeypatch, 1, torch_runs_out)
    with pytest.raises(Exhausted) as error:
        train(tiny_config())
    assert str(error.value) == f"{LOWER} Nothing was saved yet."


def test_a_network_that_does_not_fit_leaves_no_folder(
    tiny: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = tiny("model.width=3000000")
    for command, more in (("train", ", or cut"), ("describe", "."), ("profile", ".")):
        code, _, error = here([command, *words], capsys)
        assert code == 1
        assert error.startswith("Error: Out of memory: lower dataset.batch_size=64, ")
        assert f"model.width=3000000 or time_steps=4{more}" in error
        assert len(error.splitlines()) == 1
    assert not list((tmp_path / "runs").glob("*"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> RunFolder:
    """A run of which one tensor is larger than what a starved process may grow by, even if it has freed memory."""
    words = [*TINY, "model.width=256", "trainer.max_epochs=1", "model.depth=1"]
    words += [f"data_dir={data_dir}", f"runs_dir={tmp_path_factory.mktemp('wide')}", "probe.enabled=false"]
    return training.train(load_config(words), None, ["test"])[0]


def test_a_process_that_may_not_grow(wide: RunFolder, tiny: Callable[..., list[str]], starved: Starved) -> None:
    """A limit on the address space, so that the system itself refuses torch's allocations."""
    code, out, error = starved("memory=40", "evaluate", f"run={wide.path}", "accelerator=cpu")
    assert (code, error) == (1, "Error: Out of memory: lower batch_size=512.\n"), out
    code, out, error = starved("memory=40", "landscape", f"run={wide.path}", "points=3", "accelerator=cpu")
    said = "Error: Out of memory: lower batch_size or samples; finished points are kept.\n"
    assert (code, error) == (1, said), out
    code, out, error = starved("memory=40", "train", *tiny("model.width=256", "dataset.batch_size=512"))
    assert code == 1, out
    assert error.startswith("Error: Out of memory: lower dataset.batch_size=512, ")
    assert "Traceback" not in out + error


def test_a_smaller_batch_evaluates_the_same(wide: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for more in ([], ["batch_size=50", "workers=1"]):
        code, out, _ = here(["evaluate", f"run={wide.path}", "accelerator=cpu", *more], capsys)
        assert code == 0
        tables.append(out)
    assert tables[0] == tables[1]


@pytest.mark.parametrize("command", ["evaluate", "landscape"])
def test_a_killed_loader_names_what_the_command_can_lower(compared_runs: Path, starved: Starved, command: str) -> None:
    run = next(compared_runs.iterdir())
    words = [command, f"run={run}", "accelerator=cpu", "workers=1"]
    words += ["points=3", "batch_size=8"] if command == "landscape" else []
    code, out, error = starved("killed", *words)
    assert code == 1, out + error
    assert error.startswith("Error: A process of the loader died")
    assert error.endswith("most often because memory ran out: lower workers or batch_size.\n")


def test_a_killed_loader_ends_a_training_and_a_profile(tiny: Callable[..., list[str]], starved: Starved) -> None:
    for command in ("train", "profile"):
        code, out, error = starved("killed", command, *tiny("dataset.workers=1"))
        assert code == 1, out + error
        assert "lower dataset.workers or dataset.batch_size." in error
        assert "Traceback" not in out + error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to "
                      "allocate 4 bytes. Error code 12 (Cannot allocate memory)"), "Out of memory: "),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "Out of memory: "),
        (RuntimeError("std::bad_alloc"), "Out of memory: "),
        (RuntimeError("could not create a primitive"), "Out of memory: "),
        (RuntimeError("Storage size calculation overflowed with sizes=[1]"), "Out of memory: "),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Out of memory: "),
        (RuntimeError("CUDA error: out of memory"), "Out of memory on the GPU: "),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
         "Out of memory on the GPU: "),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "Out of memory on the GPU: "),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"),
         "/x/y: cannot be written (No space left on device): free some space."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded: free some space."),
        (OSError(errno.EFBIG, "File too large", "/x"),
         "/x: cannot be written (File too large): raise the limit of the size of files (ulimit -f)."),
        (RuntimeError("can't start new thread"), "No more threads can be started"),
        (OSError(errno.EMFILE, "Too many open files"), "The program ran out of open files: raise the limit"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "No more processes can be started"),
        (RuntimeError("DataLoader worker (pid 5902) is killed by signal: Killed. "), "A process of the loader died"),
    ],
)  # fmt: skip
def test_every_command_reports_exhausted_resources(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> int:
        try:
            raise error
        except type(error) as first:
            raise ValueError("while cleaning up") from first

    assert reporting_errors(fails) == 1
    assert capsys.readouterr().err.startswith(f"Error: {said}")


@pytest.mark.parametrize(
    ("error", "more_files", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 9, "(No space left on device): free some space."),
        (OSError(errno.ENOSPC, "No space left on device"), 0,
         "(No space left on device): delete some files, the file system can hold no more."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 9, "(Disk quota exceeded): free some space."),
        (OSError(errno.EFBIG, "File too large"), 9,
         "(File too large): raise the limit of the size of files (ulimit -f)."),
        (OSError("4 requested and 0 written"), 9, "(No space left on device): free some space."),
        (OSError(errno.EROFS, "Read-only file system"), 9, "(Read-only file system)."),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_written_names_what_to_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, more_files: int, said: str
) -> None:
    disk = os.statvfs_result((4096, 4096, 100, 9, 9, 100, more_files, more_files, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    file = tmp_path / "no" / "file"
    written = not_written(file, error, named="out=")
    assert str(written) == f"out={file}: cannot be written {said}"
    assert isinstance(written, Exhausted) == (error.errno != errno.EROFS)
    full = f"{size_text(9 * 4096)} free" + (", but the file system can hold no more files" if more_files == 0 else "")
    assert free_space(tmp_path) == full


def test_a_training_on_a_full_disk_says_where_its_state_is(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise not_written("x.json", OSError(errno.ENOSPC, "No space left on device"))

    config = tiny_config("checkpoint.every_n_steps=5", "probe.enabled=false")
    at_batch(monkeypatch, 8, full)
    with pytest.raises(Exhausted) as error:
        train(config)
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    said = "x.json: cannot be written (No space left on device): free some space. The last saved state is "
    assert str(error.value).startswith(said)
    assert "Once that is fixed, continue it with: " in str(error.value)
    assert "Traceback" not in run.log.read_text(encoding="utf-8")


def test_a_disk_without_room_for_the_configuration_leaves_no_folder(tiny_config: Compose) -> None:
    config = tiny_config()
    with pytest.raises(Exhausted, match="File too large"), no_file_may_grow():
        RunFolder.create(config)
    assert not list(Path(config.runs_dir).iterdir())


def test_paths_keep_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Commands have names of their own for dataset.workers and dataset.batch_size; a folder may be called dataset.x."""
    for path in ("/a/dataset.v2/x", "dataset.v2/x", "/a/dataset.workers/x"):
        with pytest.raises(Exhausted) as error, one_sentence(lambda: "lower dataset.batch_size", keys=""):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        assert str(error.value).startswith(f"{path}: cannot be written")
    with pytest.raises(Exhausted, match="lower batch_size"), one_sentence(lambda: "lower dataset.batch_size", keys=""):
        raise MemoryError


def test_other_errors_keep_their_tracebacks() -> None:
    # A kernel that is too large for a GPU has nothing to do with /dev/shm.
    for other in (RuntimeError("out of resource: shared memory, Required: 1"), OSError(errno.EIO, "x"), ValueError()):
        assert why_exhausted(other) is None
    assert disk_is_full(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert not disk_is_full(OSError(errno.EIO, "x"))
