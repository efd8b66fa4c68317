"""Trainings of benchmarks/gpu_check.py, each in a process of its own, and what they left."""

from __future__ import annotations

import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gpu_record import Task
from gradspike.json_text import readable

ROOT = Path(__file__).resolve().parents[1]
SMALL_CNN = ("model.width=4", "model.depth=2", "dataset.batch_size=256", "dataset.eval_batch_size=512")


def engines(task: Task) -> tuple[str, ...]:
    """The engines whose trainings are checked."""
    return ("auto", "triton") if task.device == "cuda" else ("eager",)


@dataclass(frozen=True)
class Ran:
    """A training that has ended: its exit code, its run folder, its seconds and the end of what it printed."""

    code: int
    folder: Path | None
    seconds: float
    said: str

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json; empty without it."""
        found = None if self.folder is None else readable(self.folder / "summary.json")
        return found or {}

    def accuracy(self) -> float | None:
        """The test accuracy of the last weights."""
        value = self.summary.get("test", {}).get("last", {}).get("accuracy")
        return None if value is None else float(value)

    def metrics(self) -> bytes:
        """The content of metrics.jsonl; empty without it."""
        file = None if self.folder is None else self.folder / "metrics.jsonl"
        return file.read_bytes() if file is not None and file.is_file() else b""


def train(task: Task, name: str, words: Iterable[str], stop: Callable[[Path], bool] | None = None) -> Ran:
    """Train in a process of its own, whose run is below `task.work`/name. With `stop`, SIGTERM once it returns true."""
    runs = Path(task.work) / name
    shutil.rmtree(runs, ignore_errors=True)
    typed = ["train", *words, f"runs_dir={runs}", f"trainer.accelerator={accelerator(task)}", "trainer.progress=none"]
    return gradspike(task, name, typed, runs, stop)


def gradspike(
    task: Task, name: str, words: Sequence[str], runs: Path, stop: Callable[[Path], bool] | None = None
) -> Ran:
    """Run a command; its run is the one below `runs`."""
    log = Path(task.work) / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*task.python, "-m", "gradspike", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        while stop is not None and process.poll() is None:
            if stop(runs):
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.01)
        code = process.wait()
    folder = next(iter(sorted(runs.glob("2*"))), None)
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
    return Ran(code, folder, time.monotonic() - started, said)


def accelerator(task: Task) -> str:
    """`trainer.accelerator` of the task's device."""
    return "gpu" if task.device == "cuda" else "cpu"


def last_line(text: str) -> str:
    """The last line of an output."""
    return text.strip().rpartition("\n")[2][:300]


def data_dir(task: Task) -> str:
    """The folder of prepared data, shared by all steps."""
    return f"data_dir={Path(task.work).parent / 'data'}"


def clock(task: Task, repeats: int) -> Callable[[Callable[[], object]], float]:
    """Median seconds of a call on the device."""
    if task.device == "cuda":
        from triton_bandwidth import seconds

        return partial(seconds, repeats=repeats)

    def timed(call: Callable[[], object]) -> float:
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])

    return timed
