"""Everything to check and measure on a GPU in one command, for the first time that there is one.

    python benchmarks/gpu_check.py                          # all steps, about eight minutes on an H100
    python benchmarks/gpu_check.py --only kernels,vggsnn    # again, some of them
    python benchmarks/gpu_check.py --pack cifar10-pack.zip  # CIFAR-10 in 60 MB, to take along; then --data FILE there
    python benchmarks/gpu_check.py --table                  # write the results into docs/performance.md

Each step has its own process and time limit and writes OUT/<step>.json at once, with its output in OUT/<step>.log. A
step that fails does not stop the others. The same command again continues: it repeats only steps that have not passed.
Exit code 0: all chosen steps have passed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from gpu_record import FAILED, PASSED, TIMED_OUT, Task, close, results
from gradspike.cli.reporting import reporting_errors
from gradspike.cores import cores
from gradspike.errors import ConfigError, did_you_mean, unknown_path
from gradspike.json_text import readable
from gradspike.shown import counted
from gradspike.started import child_environment

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Step:
    """A step, its time limit in seconds, and whether it is timed: nothing else may run beside it then."""

    name: str
    what: str
    seconds: float
    timed: bool


STEPS = (
    Step("machine", "GPU, driver, versions, copy bandwidth, bf16 matrix product", 60, True),
    Step("tests", "pytest -m gpu", 180, False),
    Step("digits", "the README's first command, twice with each engine", 180, False),
    Step("resume", "a run that is stopped within an epoch and resumed, compared with one that is not", 150, False),
    Step("networks", "a deterministic step of every network with every pooling", 150, False),
    Step("nccl", "a process group of one process", 60, False),
    Step("kernels", "norm and neuron of single layers, compared with a copy", 90, True),
    Step("resnet19_128", "training steps of ResNet-19, T = 2, batch 128", 120, True),
    Step("resnet19_32", "training steps of ResNet-19, T = 2, batch 32", 90, True),
    Step("vggsnn", "training steps of VGGSNN, T = 10", 90, True),
    Step("cifar10", "CIFAR-10 with five methods, as many epochs as fit", 240, True),
)
LEAST = 10.0
"""Seconds without which a step is not started."""
PATIENCE = {"full": 1.0, "small": 20.0}
"""Factor of the time limits: small networks are for machines that are slow or busy."""


def options_of(words: Sequence[str]) -> argparse.Namespace:
    """The options, checked. Raises ConfigError."""
    steps = "\n".join(f"  {step.name:<13} {step.what}" for step in STEPS)
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nSteps:\n{steps}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = [step.name for step in STEPS]
    parser.add_argument("--only", metavar="STEPS", help="only these steps, also those that have passed")
    parser.add_argument("--skip", metavar="STEPS", default="", help="all but these steps")
    parser.add_argument("--again", action="store_true", help="repeat steps that have passed")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu_check", help="folder of the results "
                        "(build/gpu_check)")  # fmt: skip
    parser.add_argument("--minutes", type=float, help="time for all steps together (8; 160 for --size small)")
    parser.add_argument("--jobs", type=int, help="processes at a time in steps without times; default: cores / 3")
    parser.add_argument("--data", type=Path, help="CIFAR-10: a folder, an archive or a pack; default: data/, then "
                        "GRADSPIKE_DATA or ../shared/data")  # fmt: skip
    parser.add_argument("--size", choices=["full", "small"], default="full", help="small: networks of a few channels, "
                        "to try out the command")  # fmt: skip
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try out the command")
    parser.add_argument("--simulated", type=Path, metavar="SCRIPT", help="the device's kernels compute nothing: do not "
                        "check values, and start each process with this script")  # fmt: skip
    parser.add_argument("--table", action="store_true", help="write the results into the page instead")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page for --table (docs/performance.md)")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="pack CIFAR-10 into this zip file instead")
    options = parser.parse_args(words)
    options.only = None if options.only is None else chosen("only", options.only, names)
    options.skip = chosen("skip", options.skip, names)
    if options.only == []:
        raise ConfigError(f"--only: choose from {', '.join(names)}.")
    if options.minutes is None:
        options.minutes = 8.0 * PATIENCE[options.size]
    if options.minutes <= 0:
        raise ConfigError(f"--minutes {options.minutes:g}: must be greater than 0.")
    options.jobs = max(1, cores() // 3) if options.jobs is None else options.jobs
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: must be at least 1.")
    for name in ("simulated", "data"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            raise ConfigError(f"--{name}: {unknown_path('file or folder', path)}")
    options.data = options.data or found_data()
    return options


def chosen(option: str, words: str, allowed: Sequence[str]) -> list[str]:
    """The words of a comma-separated list. Raises ConfigError for a word that is not allowed."""
    found = [word.strip() for word in words.split(",") if word.strip()]
    for word in found:
        if word not in allowed:
            raise ConfigError(
                f"--{option} {word}: unknown step.{did_you_mean(word, allowed)} Steps: {', '.join(allowed)}"
            )
    return found


def found_data() -> Path | None:
    """Where CIFAR-10 is, if it is in one of the usual places."""
    shared = Path(os.environ.get("GRADSPIKE_DATA", ROOT.parent / "shared" / "data"))
    names = ("cifar10.zip", "cifar10", "cifar-10-python.tar.gz", "cifar-10-batches-py")
    return next((place / name for place in (ROOT / "data", shared) for name in names if (place / name).exists()), None)


class Run:
    """One call of the command: the chosen steps, the time they have together, and their processes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = time.monotonic() + 60 * options.minutes
        self.python = [sys.executable, *([str(options.simulated.absolute())] if options.simulated else [])]
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.late: list[str] = []
        """Steps for which no time was left."""

    def steps(self) -> list[Step]:
        """The steps to run: without those that have passed in the same size on the same device."""
        options = self.options
        named = [step for step in STEPS if options.only is None or step.name in options.only]
        named = [step for step in named if step.name not in options.skip]
        if options.again or options.only is not None:
            return named
        done = results(options.out)
        return [step for step in named if not self.has_passed(done.get(step.name, {}))]

    def has_passed(self, result: dict[str, object]) -> bool:
        """Whether a result is one of this size and device without a problem."""
        wanted = (PASSED, self.options.size, self.options.device, self.options.simulated is not None)
        return tuple(result.get(key) for key in ("state", "size", "device", "simulated")) == wanted

    def all(self, steps: Iterable[Step]) -> None:
        """Run the steps in order; neighbours without times share the machine."""
        try:
            for timed, group in itertools.groupby(steps, key=lambda step: step.timed):
                with ThreadPoolExecutor(1 if timed else self.options.jobs) as pool:
                    list(pool.map(self.one, group))
        except BaseException:  # a signal: leave no process behind
            for process in list(self.processes):
                end(process)
            raise

    def one(self, step: Step) -> None:
        """Run a step in its process and complete its result."""
        options = self.options
        seconds = min(step.seconds * PATIENCE[options.size], self.deadline - time.monotonic())
        if seconds < LEAST:
            self.late.append(step.name)
            print(f"{step.name:<13} not started: no time left", flush=True)
            return
        file = options.out / f"{step.name}.json"
        file.unlink(missing_ok=True)
        task = Task(
            step=step.name,
            size=options.size,
            device=options.device,
            simulated=options.simulated is not None,
            python=tuple(self.python),
            work=str(options.out.absolute() / "work" / step.name),
            data=None if options.data is None else str(options.data.absolute()),
            seconds=seconds,
            jobs=options.jobs,
        )
        command = [*self.python, str(ROOT / "benchmarks" / "gpu_steps.py"), str(file.absolute())]
        started = time.monotonic()
        with file.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [*command, json.dumps(asdict(task))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment(),
                start_new_session=True,
            )
            self.processes.add(process)
            try:
                code: int | None = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                code = None
            end(process)
            self.processes.discard(process)
        took = time.monotonic() - started
        problems = []
        if code is None:
            problems = [f"stopped after its time limit of {seconds:.0f} s"]
        elif code != 0:
            problems = [f"its process ended with code {code}: {last_line(file.with_suffix('.log'))}"]
        found = (readable(file) or {}).get("problems", [])
        state = TIMED_OUT if code is None else FAILED if problems or found else PASSED
        close(file, state, took, problems)
        print(f"{step.name:<13} {state}, {took:.0f} s", *[f"\n  {one}" for one in [*found, *problems]], flush=True)


def environment() -> dict[str, str]:
    """The variables of a step: this checkout's package, and one folder of compiled kernels for all of them."""
    sources = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**child_environment(os.environ), "PYTHONPATH": sources, "WANDB_MODE": "disabled"}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a step's process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(file: Path) -> str:
    """The last line of a log; empty if there is none."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def run(options: argparse.Namespace) -> int:
    """Run the steps, print a summary, and return the exit code."""
    if options.table:
        from gpu_table import write_table

        write_table(options.out, options.page)
        return 0
    if options.pack is not None:
        from gpu_pack import pack

        pack(options.data, options.pack)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    one = Run(options)
    steps = one.steps()
    wanted = [step.name for step in STEPS if step in steps]
    skipped = [step.name for step in STEPS if step not in steps]
    print(f"{counted(len(steps), 'step')}, {options.minutes:g} minutes at most; results in {options.out}", flush=True)
    if skipped:
        print(f"Not repeated or not chosen: {', '.join(skipped)}", flush=True)
    one.all(steps)
    return summary(options.out, wanted, one.late)


def summary(out: Path, wanted: Sequence[str], late: Sequence[str]) -> int:
    """Print what became of the steps. Returns 0 if all have passed."""
    found = results(out)
    bad = [name for name in wanted if name in late or found.get(name, {}).get("state") != PASSED]
    print(f"{len(wanted) - len(bad)} of {counted(len(wanted), 'step')} passed.", flush=True)
    unchecked = {name: found[name]["unchecked"] for name in wanted if found.get(name, {}).get("unchecked")}
    if unchecked:
        print("Not checked, because the device is simulated:", flush=True)
        for name, checks in unchecked.items():
            print(f"  {name}: {'; '.join(dict.fromkeys(checks))}", flush=True)
    if bad:
        print(f"Not passed: {', '.join(bad)}. The same command again repeats them.", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: run(options_of(sys.argv[1:]))))
