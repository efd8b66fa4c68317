"""Time and memory of the largest work: a million images, 100,000 recordings, 1,000 runs, 10,000 trials, a long run.

    python benchmarks/size.py [images zip tar events runs trials study steps] [--steps list,open] [--scale 0.1]
        [--folder /tmp/size]

Each part is made artificially in `--folder`, at a tenth of the size and at the size (--scale 1: the numbers below), and
each step runs in a process of its own:

    images, zip, tar    1,300,000 PNG files of 8x8 pixels in 1,000 classes, in folders, a zip file or a tar file
    events              100,000 recordings of 300 events in 100 classes
    runs                1,000 finished runs of 200 epochs, with 200 records of the probe each
    trials              10,000 trials of one sweep with 8 workers; a trial only writes the files of a finished run
    study               only the database of such a sweep, with a pruner
    steps               one run with 1,000,000 records of the probe in metrics.jsonl (1 GB)

Prints a Markdown table: processor seconds of all processes of a step, peak memory of the process above its start
(imports take 300 to 800 MiB) and of the largest process that it started, and the growth from a tenth: 10 means in
proportion to the work. Half of the preparation is done by a process that is killed with SIGKILL, the rest by the next
one. Needs about 15 GB of disk at full size, and Linux. Removes what it made.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from size_part import Part

REPORT = "report.jsonl"
PARTS = {"images": "size_data", "zip": "size_data", "tar": "size_data", "events": "size_data"}
PARTS |= {"runs": "size_runs", "trials": "size_runs", "study": "size_runs", "steps": "size_runs"}
"""Parts, and the modules in which they are."""
HEAD = ("part", "step", "number", "CPU (s)", "growth", "memory (MiB)", "growth", "worker (MiB)")
TICKS = os.sysconf("SC_CLK_TCK")
SECONDS_BETWEEN_LOOKS = 0.2
LEAST_SECONDS, LEAST_MIB = 0.05, 5.0
"""Smaller amounts have no meaningful growth."""


@dataclass(frozen=True)
class Used:
    """What a step took. seconds: of the processor; memory: peak in MiB above its start; worker: peak of the largest
    process that it started, or 0."""

    seconds: float
    memory: float
    worker: float


def peak_of(pid: int | str) -> float:
    """Peak resident memory of a process in MiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def seconds_of(pid: int) -> float:
    """Processor seconds of a process and of its ended children; 0 if it has ended."""
    try:
        numbers = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(number) for number in numbers[11:15]) / TICKS


def part_of(name: str) -> Part:
    """A part by its name."""
    found: Part = importlib.import_module(PARTS[name]).PARTS[name]
    return found


def below(pid: int) -> Iterator[int]:
    """All processes that a process has started, directly or not."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(word) for word in children.read_text(encoding="ascii").split()]
        except OSError:
            continue
        for child in found:
            yield child
            yield from below(child)


def run_step(part: str, step: str, folder: Path, count: int) -> Used:
    """Run one step in a process of its own. A step named `..., killed` is killed when half of its parts are done."""
    command = [sys.executable, __file__, "--run", part, step, str(count), "--folder", str(folder)]
    (folder / REPORT).unlink(missing_ok=True)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    worker = peak = spent = 0.0
    while process.poll() is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        started = list(below(process.pid))
        peak = max(peak, peak_of(process.pid))
        if (folder / REPORT).exists():  # importing torch starts processes, too
            worker = max([worker, *(peak_of(pid) for pid in started)])
        spent = max(spent, sum(seconds_of(pid) for pid in (process.pid, *started)))
        if step.endswith("killed") and half_done(folder, part, count):
            process.send_signal(signal.SIGKILL)
    start, *ends = (json.loads(line) for line in (folder / REPORT).read_text(encoding="utf-8").splitlines())
    if step.endswith("killed"):
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"{part}, {step}: ended before it was killed; choose a larger --scale")
        return Used(spent - start["seconds"], peak - start["memory"], worker)
    if process.returncode:
        raise SystemExit(f"{part}, {step}: ended with exit code {process.returncode}")
    return Used(ends[0]["seconds"] - start["seconds"], ends[0]["memory"] - start["memory"], worker)


def half_done(folder: Path, part: str, count: int) -> bool:
    """Whether half of the parts of a preparation are finished."""
    finished = sum(1 for _ in folder.glob("data/prepared/.*.partial/parts/[0-9]*/part.json"))
    return 2 * finished * part_of(part).part_size >= count


def child(part: str, step: str, count: int, folder: Path) -> None:
    """Run a step in this process, and write its start and end to REPORT."""
    action = part_of(part).steps[step]

    def now() -> str:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return json.dumps({"seconds": sum(one.ru_utime + one.ru_stime for one in used), "memory": peak_of("self")})

    with (folder / REPORT).open("w", encoding="utf-8", buffering=1) as report:
        print(now(), file=report)
        action(folder, count)
        print(now(), file=report)


def growth(small: float, large: float, least: float) -> str:
    """How many times as much the large one took."""
    return f"{large / small:.1f}" if small >= least else "-"


def measure(part: str, steps: list[str] | None, scale: float, place: Path) -> Iterator[list[str]]:
    """The rows of a part. steps: those to measure; None: all."""
    about = part_of(part)
    if unknown := [step for step in steps or [] if step not in about.steps]:
        raise SystemExit(f"{part} has no step {unknown[0]!r}: choose from {', '.join(about.steps)}")
    found: dict[str, list[Used]] = {}
    counts = [max(1, round(about.full * scale * share)) for share in (0.1, 1)]
    for count in counts:
        folder = Path(tempfile.mkdtemp(prefix=f"{part}-", dir=place))
        try:
            about.make(folder, count)
            for step in about.steps if steps is None else steps:
                used = run_step(part, step, folder, count)
                print(f"{part}, {step}, {count:,}: {used}", file=sys.stderr)
                found.setdefault(step, []).append(used)
        finally:
            shutil.rmtree(folder)
    for step, (small, large) in found.items():
        yield [
            part,
            step,
            f"{counts[-1]:,}",
            f"{large.seconds:,.1f}",
            growth(small.seconds, large.seconds, LEAST_SECONDS),
            f"{large.memory:,.0f}",
            growth(small.memory, large.memory, LEAST_MIB),
            f"{large.worker:,.0f}" if large.worker else "",
        ]


def main() -> None:
    """Measure the named parts, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--steps", type=lambda text: text.split(","))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    if options.run:
        part, step, count = options.run
        child(part, step, int(count), options.folder)
        return
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    options.folder.mkdir(exist_ok=True)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * 2}{'---:|' * (len(HEAD) - 2)}", flush=True)
    for part in options.parts or PARTS:
        for row in measure(part, options.steps, options.scale, options.folder):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
