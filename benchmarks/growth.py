"""How time, memory and compile time of a training step grow with T, batch and width, beside the ReLU twin.

    python benchmarks/growth.py --out docs/performance
    python benchmarks/growth.py --axes T --rounds 5

ResNet-19 in fp32, channels-last, fixed_sg: one of T, batch and width varies, the others stay at 4, 4 and 0.5. Four
candidates take turns, as in benchmarks/step.py: the ReLU twin, plain and through torch.compile; ours, compiled and
eager. Times are processor times on one thread, so other work disturbs them little: medians of the rounds. Compile time
is the processor time of the first step, from an empty cache of kernels, less that of a later one; plain candidates
compile nothing. --out writes growth.json after each place and the figure growth.svg at the end; places that an earlier
call with as many rounds measured on the same machine are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # compilers are then children, whose time is counted
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from rich.table import Table

from gradspike.cli.reporting import reporting_errors
from gradspike.errors import ConfigError, UserError
from gradspike.json_text import to_json
from gradspike.runs.files import write_atomically
from gradspike.shown import counted
from gradspike.terminal.tables import console
from step import NETWORKS, Worker, chosen
from step_table import cpu_name, setting_named, shown
from step_worker import Candidate, Network

AXES: dict[str, tuple[float, ...]] = {
    "T": (1, 2, 4, 8, 16, 32),
    "batch": (2, 8, 32),
    "width": (0.25, 0.5, 1.0),
}
BASE = replace(NETWORKS["resnet19"], time_steps=4, batch=4, width=0.5)
CANDIDATES = (
    Candidate("ReLU twin", "relu"),
    Candidate("ReLU twin, compiled", "relu", compiled=True),
    Candidate("ours, compiled", "ours", "compiled"),
    Candidate("ours, eager", "ours", "eager"),
)
RECORD, FIGURE = "growth.json", "growth.svg"
QUANTITIES = {"time": "processor time of a step (s)", "memory": "peak memory (MiB)", "compile": "compile time (s)"}


@dataclass(frozen=True)
class Point:
    """What one candidate took at one place of an axis: seconds of a step, MiB, seconds of compilation."""

    axis: str
    value: float
    candidate: str
    time: float
    memory: float
    compile: float


def network_at(axis: str, value: float) -> Network:
    """The network with one quantity changed."""
    if axis == "T":
        return replace(BASE, time_steps=int(value))
    return replace(BASE, batch=int(value)) if axis == "batch" else replace(BASE, width=value)


def measure(axis: str, value: float, rounds: int) -> list[Point]:
    """All candidates at one place. Raises UserError if one fails."""
    network = network_at(axis, value)
    with tempfile.TemporaryDirectory() as kernels:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = kernels
        workers = [Worker(network, one, "cpu", 1) for one in CANDIDATES]
        try:
            for worker in workers:
                checked(worker, worker.answer())
            setting = asdict(setting_named("fp32-channels_last"))
            ready = [checked(worker, worker.ask(prepare=setting)) for worker in workers]
            times: list[list[float]] = [[] for _ in workers]
            for turn in range(rounds):
                for place in range(len(workers)):
                    index = (turn + place) % len(workers)
                    times[index].append(checked(workers[index], workers[index].ask(run=1))["processor"])
        finally:
            for worker in workers:
                worker.close()
    found = []
    for candidate, answer, taken in zip(CANDIDATES, ready, times, strict=True):
        step = statistics.median(taken)
        compiles = candidate.compiled or candidate.engine == "compiled"
        took = max(answer["first"] - step, 0.0) if compiles else 0.0
        found.append(Point(axis, value, candidate.name, step, answer["peak_bytes"] / 2**20, took))
    return found


def checked(worker: Worker, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer. Raises UserError if it is a failure."""
    if "error" in answer:
        raise UserError(f"{worker.candidate.name}: {answer['error']}")
    return answer


def table(points: Sequence[Point]) -> Table:
    """Ratios to the plain twin at the same place, and seconds of compilation."""
    heads = ["twin: s", "MiB", "compiled: time", "memory", "eager: time", "memory", "compile: ours, s", "twin, s"]
    rows = []
    for axis, value in dict.fromkeys((one.axis, one.value) for one in points):
        here = {one.candidate: one for one in points if (one.axis, one.value) == (axis, value)}
        twin, compiled_twin, ours, eager = (here[candidate.name] for candidate in CANDIDATES)
        cells = [f"{twin.time:.3f}", f"{twin.memory:.0f}"]
        for one in (ours, eager):
            cells += [f"{one.time / twin.time:.2f}", f"{one.memory / twin.memory:.2f}"]
        rows.append([f"{axis} = {value:g}", *cells, f"{ours.compile:.1f}", f"{compiled_twin.compile:.1f}"])
    return shown("ours, relative to the plain ReLU twin", ["", *heads], rows)


def draw(points: Sequence[Point], path: Path) -> None:
    """A panel for each axis and quantity, both logarithmic."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(one.axis for one in points))
    figure = Figure(figsize=(3.4 * len(axes), 8), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(len(QUANTITIES), len(axes), squeeze=False)
    for row, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for panel, axis in zip(row, axes, strict=True):
            for place, candidate in enumerate(CANDIDATES):
                mine = [one for one in points if (one.axis, one.candidate) == (axis, candidate.name)]
                values = [asdict(one)[quantity] for one in mine]
                if any(values):
                    panel.plot([one.value for one in mine], values, "o-", color=f"C{place}", label=candidate.name)
            panel.set_xscale("log", base=2)
            panel.set_xticks(AXES[axis], [f"{value:g}" for value in AXES[axis]])
            panel.set_xlabel(axis)
            panel.grid(alpha=0.3)
            if quantity != "compile":
                panel.set_yscale("log", base=2)
                panel.yaxis.set_major_formatter("{x:g}")
            else:
                panel.set_ylim(bottom=0)
        row[0].set_ylabel(label)
    panels[0][0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Measure, print and write. Raises ConfigError for options that do not fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--axes", default=",".join(AXES), help="choose from " + ", ".join(AXES))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each candidate")
    parser.add_argument("--out", type=Path, help="folder for growth.json and growth.svg")
    options = parser.parse_args()
    axes = chosen("axes", options.axes, AXES)
    if options.rounds < 1:
        raise ConfigError(f"--rounds {options.rounds}: must be at least 1.")
    if options.out is not None and not options.out.is_dir():
        raise ConfigError(f"--out {options.out}: is no folder.")
    import torch

    about = f"{cpu_name()}, 1 thread; torch {torch.__version__}; {counted(options.rounds, 'round')}"
    points = known(options.out, about)
    for axis in axes:
        for value in AXES[axis]:
            if any((one.axis, one.value) == (axis, value) for one in points):
                continue
            points += measure(axis, value, options.rounds)
            print(f"{axis} = {value:g}: measured", flush=True)
            if options.out is not None:
                text = to_json({"about": about, "points": [asdict(one) for one in points]}, indent=1)
                write_atomically(options.out / RECORD, text + "\n")
    out = console()
    out.print(table(points))
    out.print(about, highlight=False, markup=False)
    if options.out is not None:
        with tempfile.TemporaryDirectory(dir=options.out) as folder:
            draw(points, Path(folder) / FIGURE)
            os.replace(Path(folder) / FIGURE, options.out / FIGURE)
        print(f"written: {options.out / RECORD} and {FIGURE}", flush=True)
    return 0


def known(folder: Path | None, about: str) -> list[Point]:
    """What an earlier call with this description measured. Raises UserError for a damaged record."""
    file = None if folder is None else folder / RECORD
    if file is None or not file.is_file():
        return []
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return [Point(**one) for one in record["points"]] if record["about"] == about else []
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file}: is damaged ({error}). Delete it to measure again.") from error


if __name__ == "__main__":
    sys.exit(reporting_errors(main))
