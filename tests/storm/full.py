"""A disk that is full, at every point of a training; and files that may not grow."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gradspike.runs.folder import RunFolder
from storm.commands import Lab, Result, run_in
from storm.faults import REFUSED, WRONG, Row, judged
from storm.same import differences

SIZES = 14
PAGE = 4096


def rows(lab: Lab) -> Iterator[Row]:
    disk = Row("disk full (tmpfs)", "resumed with more space")
    try:
        with small_disk(lab.folder / "probe", PAGE):
            pass
    except (OSError, subprocess.CalledProcessError):
        disk.fault += ": not tried, mounting is not permitted"
        yield disk
    else:
        sizes = _sizes(_occupied(lab.unbroken.path))
        for number, size in enumerate(sizes):
            folder = lab.folder / f"full_{number}"
            with small_disk(folder, size):
                devices = 2 if number % 5 == 2 else 1
                first = lab.command(folder, *lab.words(*([] if devices == 1 else ["trainer.devices=2"])))
                said = _refusal(first, folder, "No space left on device")
                subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
                _count(disk, lab, folder, f"{size // 1024} KiB, {devices} ranks", said, devices)
        yield disk
    largest = Row("`ulimit -f`", "resumed without it")
    file_sizes = _sizes(max(file.stat().st_size for file in lab.unbroken.path.rglob("*") if file.is_file()))
    for number, size in enumerate(file_sizes):
        folder = lab.folder / f"limited_{number}"
        folder.mkdir()
        first = lab.command(folder, *lab.words(), largest_file=size)
        _count(largest, lab, folder, f"{size} bytes", _refusal(first, folder, "File too large"), 1)
    yield largest


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system in memory with so many bytes. Raises CalledProcessError if mounting is not permitted."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _sizes(most: int) -> list[int]:
    """Sizes from one page to nearly `most`."""
    return [max(PAGE, most * number // SIZES // PAGE * PAGE) for number in range(SIZES)]


def _occupied(run: Path) -> int:
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in run.rglob("*"))


def _refusal(result: Result, folder: Path, reason: str) -> str:
    """What was wrong with the way a training ended for want of space; empty if nothing was."""
    if result.code == 0:
        return "did not fail"
    if "Traceback" in result.output:
        return f"traceback: {result.last_line}"
    if not result.last_line.startswith("Error: ") or reason not in result.last_line:
        return f"said: {result.last_line}"
    if left := [file.name for file in folder.rglob("*") if file.name.startswith(".") and file.name != ".lock"]:
        return f"left {', '.join(left)}"
    for file in folder.glob("runs/*/status.json"):
        status = json.loads(file.read_text())
        if status["state"] == "running":
            return "the status is running"
    return ""


def _count(row: Row, lab: Lab, folder: Path, what: str, problem: str, devices: int) -> None:
    """Judge the end of the training, and what a resumed one makes of it."""
    if problem == "did not fail":
        row.count("had enough space", what)
        return
    if problem:
        row.count(WRONG, what, problem)
        return
    started = [file.parent for file in folder.glob("runs/*/config.yaml")]
    words = ["train", f"resume={started[0]}"] if started else lab.words(f"trainer.devices={devices}")
    result = lab.command(folder, *words)
    outcome, why = judged(result, [] if result.code else _differences(lab, folder, devices))
    row.count(outcome if outcome != REFUSED else WRONG, what, why)


def _differences(lab: Lab, folder: Path, devices: int) -> list[str]:
    """On two ranks, rounding differs from one: that the resumed run finished is all there is to see."""
    return differences(lab.unbroken, run_in(folder)) if devices == 1 else _unfinished(run_in(folder))


def _unfinished(run: RunFolder) -> list[str]:
    return [] if run.state() == "finished" else [f"is {run.state()}"]
