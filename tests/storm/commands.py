"""The runs that faults are tried on, and commands on them, as forks of one process."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradspike.runs.folder import RunFolder
from helpers.command import TINY
from helpers.forks import ForkServer

WORDS = [*TINY, "method=ds_atgo", "time_steps=2", "trainer.ema=0.9", "dataset.batch_size=128", "probe.every_n_steps=3"]
WORDS += ["checkpoint.every_n_steps=4", "trainer.max_epochs=3", "runs_dir=runs"]


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit code and what it printed."""

    code: int
    output: str

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.output.splitlines()) if line.strip()), "")


class Lab:
    """Commands, an unbroken run, and runs that stopped in their second epoch.

    Runs of the same options are in folders of their own, where `runs_dir=runs` is relative, so their configurations are
    equal.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = ForkServer(OMP_NUM_THREADS="1")
        self._copies = 0
        self._known: dict[str, Any] = {}
        self.unbroken = self._trained("unbroken")
        self.other = self._trained("other", "seed=1")
        self.stopped = self._stopped("stopped")

    def words(self, *more: str) -> list[str]:
        """The command that trains a run from its start."""
        return ["train", *WORDS, f"data_dir={self.folder / 'data'}", *more]

    def command(self, folder: Path, *words: str, largest_file: int | None = None) -> Result:
        """Run a command in a folder. largest_file: bytes that no file may exceed (`ulimit -f`)."""
        process = self._server.start(*words, cwd=folder)
        if largest_file is not None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest_file, largest_file))
        output, _ = process.communicate(timeout=300)
        assert process.returncode is not None
        return Result(process.returncode, output)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returns; the second time, what it returned the first time."""
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    @contextlib.contextmanager
    def copy(self, run: RunFolder) -> Iterator[RunFolder]:
        """A copy of a run to damage, beside `self.other` and in a folder of its own."""
        self._copies += 1
        folder = self.folder / f"copy_{self._copies}"
        copied = folder / "runs" / run.path.name
        shutil.copytree(run.path, copied)
        shutil.copytree(self.other.path, folder / "runs" / self.other.path.name)
        try:
            yield RunFolder(copied)
        finally:
            shutil.rmtree(folder)

    def _trained(self, name: str, *more: str) -> RunFolder:
        folder = self.folder / name
        folder.mkdir()
        result = self.command(folder, *self.words(*more))
        if result.code:
            raise RuntimeError(f"the undamaged training failed:\n{result.output}")
        return run_in(folder)

    def _stopped(self, name: str) -> RunFolder:
        """A run that was stopped by SIGTERM in its second epoch, after two states were saved."""
        folder = self.folder / name
        folder.mkdir()
        process = self._server.start(*self.words(), cwd=folder)
        while '"epoch"' not in _text(folder) or len(list(folder.glob("runs/*/checkpoints/last*.ckpt"))) < 2:
            if process.poll() is not None:
                raise RuntimeError(f"the training ended before it could be stopped:\n{process.communicate()[0]}")
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        process.communicate()
        run = run_in(folder)
        if run.state() != "interrupted":
            raise RuntimeError(f"the stopped training is {run.state()}")
        return run


def run_in(folder: Path) -> RunFolder:
    """The only run in a folder."""
    return RunFolder(next(folder.glob("runs/*/config.yaml")).parent)


def _text(folder: Path) -> str:
    return "".join(file.read_text() for file in folder.glob("runs/*/metrics.jsonl"))
