"""Time and peak memory of a training step, relative to the same network with ReLU (1.00) in the same run.

    python benchmarks/step.py
    python benchmarks/step.py --networks resnet19 --methods fixed_sg,psg --settings all --rounds 15
    python benchmarks/step.py --neurons clif,glif,psn
    python benchmarks/step.py --write docs/performance.md

Candidates: the ReLU twin, plain and through torch.compile (the faster one is 1.00); ours, each engine with each method;
one autograd function per time step, as in released research code; SpikingJelly and snnTorch, if installed. Each
candidate has its own process. All processes stay alive and take turns; each round starts with another one, so a machine
that slows down slows all of them. Ratios are of two numbers of the same round. The tables have medians and the 10th and
90th percentile.

A step is: gradients to None, forward, loss (cross entropy of the mean over time), backward, SGD with momentum. Frames
differ between time steps, so no candidate gains from a constant input; the row "still image" shows what ours gains
from one. Warm-up and compilation are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import peers
import step_worker
from gradspike.cli.reporting import reporting_errors
from gradspike.engine.registry import ENGINES, triton_problem
from gradspike.errors import ConfigError, UserError, did_you_mean
from gradspike.methods.registry import METHODS
from gradspike.neurons.registry import NEURONS
from gradspike.shown import counted
from gradspike.terminal.tables import console
from names import GRAPHS, TWINS
from step_table import Measured, check_page, cpu_name, markdown, setting_named, shown, table, write_page
from step_worker import PEERS, Candidate, Network, Setting

NETWORKS = {
    "resnet19": Network("ResNet-19", ("dataset=cifar10", "model=resnet19"), 2, 16, 0.5),
    "vggsnn": Network("VGGSNN", ("dataset=cifar10dvs", "model=vggsnn"), 10, 4, 0.5),
}
SETTINGS = [f"{precision}-{layout}" for precision in ("fp32", "bf16") for layout in ("contiguous", "channels_last")]


def options_of(words: Sequence[str]) -> argparse.Namespace:
    """The options, checked. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--networks", default=",".join(NETWORKS), help="choose from " + ", ".join(NETWORKS))
    parser.add_argument(
        "--methods", default="fixed_sg,mpd_agl,ds_atgo", help="choose from " + ", ".join(METHODS.names())
    )
    parser.add_argument(
        "--neurons",
        default="",
        help="also measure the fastest engine and SpikingJelly with these neurons and fixed_sg; choose from "
        + ", ".join(NEURONS.names()),
    )
    parser.add_argument(
        "--settings", default="fp32-contiguous,bf16-channels_last", help=f"choose from {', '.join(SETTINGS)}; or all"
    )
    parser.add_argument(
        "--engines",
        help=f"choose from {', '.join(ENGINES)}, each with every method. Default: all that run on the device; the "
        "reference, eager, only with the first method",
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each candidate")
    parser.add_argument("--steps", type=int, help="training steps per turn; default: 1 on a CPU, 10 on CUDA")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's (OMP_NUM_THREADS)")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="SpikingJelly, snnTorch")
    parser.add_argument("--pack", action="store_true", help="also ours with trainer.pack_spikes=true")
    parser.add_argument("--graphs", action="store_true", help="on CUDA, also the twins and ours with "
                        "trainer.cuda_graphs=true")  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="also ours and SpikingJelly, compiled as a whole by "
                        "torch.compile, which takes minutes each")  # fmt: skip
    parser.add_argument("--twin-compile", action=argparse.BooleanOptionalAction, default=True,
                        help="also measure the ReLU twin through torch.compile")  # fmt: skip
    parser.add_argument("--width", type=float, help="model.width; default: 0.5")
    parser.add_argument("--batch", type=int, help="samples; default: 16 for resnet19, 4 for vggsnn")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda if available")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write the tables into this page, such as docs/performance.md"
    )
    options = parser.parse_args(words)
    options.networks = chosen("networks", options.networks, NETWORKS)
    options.methods = chosen("methods", options.methods, METHODS.names())
    options.neurons = chosen("neurons", options.neurons, NEURONS.names()) if options.neurons else []
    options.settings = SETTINGS if options.settings == "all" else chosen("settings", options.settings, SETTINGS)
    if options.engines is not None:
        options.engines = chosen("engines", options.engines, ENGINES)
    for name in ("rounds", "steps", "threads", "width", "batch"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name} {value}: must be greater than 0.")
    if options.batch == 1:
        raise ConfigError("--batch 1: batch norm needs two samples or more.")
    if options.write is not None:
        check_page(options.write)
    return options


def chosen(option: str, words: str, allowed: Iterable[str]) -> list[str]:
    """The words of a comma-separated list. Raises ConfigError for a word that is not allowed."""
    allowed = list(allowed)
    found = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    if not found:
        raise ConfigError(f"--{option}: choose from {', '.join(allowed)}.")
    for word in found:
        if word not in allowed:
            raise ConfigError(f"--{option} {word}: unknown.{did_you_mean(word, allowed)} Allowed: {', '.join(allowed)}")
    return found


def candidates(options: argparse.Namespace, device: str) -> list[Candidate]:
    """The candidates, in the order of the rows."""
    found = [Candidate(TWINS[0], "relu")]
    if options.twin_compile:
        found.append(Candidate(TWINS[1], "relu", compiled=True))
    methods = options.methods
    if options.engines is not None:
        pairs = [(engine, method) for engine in options.engines for method in methods]
    else:
        running = [engine for engine in ENGINES if engine != "triton" or triton_problem(device) is None]
        engines = {engine: methods[:1] if engine == "eager" else methods for engine in running}
        pairs = [(engine, method) for engine, those in engines.items() for method in those]
    ours = [Candidate(f"ours, {engine}, {method}", "ours", engine, method) for engine, method in pairs]
    if options.pack:
        ours += [replace(one, name=f"{one.name}, packed spikes", packed=True) for one in ours]
    if options.graphs:
        found += [as_graphs(one) for one in found]
        ours += [as_graphs(one) for one in ours]
    best = next((one for one in ours if one.engine == "compiled"), ours[0])
    if options.compile:
        ours.append(replace(best, name=f"{best.name}, trainer.compile", compiled=True))
    found += [*ours, replace(best, name=f"{best.name}, still image", still=True)]
    for neuron in options.neurons:
        found.append(Candidate(f"ours, {best.engine}, fixed_sg, {neuron}", "ours", best.engine, neuron=neuron))
        if options.peers and neuron in peers.SPIKINGJELLY_NEURONS:
            found.append(Candidate(f"SpikingJelly, {neuron}", "spikingjelly", neuron=neuron, backend="torch"))
    found.append(Candidate("one autograd function a step", "research_code"))
    if options.peers:
        for backend in peers.SPIKINGJELLY_BACKENDS[device]:
            found.append(Candidate(f"SpikingJelly, {backend}", "spikingjelly", backend=backend))
        if options.compile:
            found.append(replace(found[-1], name=f"{found[-1].name}, compiled", compiled=True))
        found.append(Candidate("snnTorch", "snntorch"))
    return found


def as_graphs(candidate: Candidate) -> Candidate:
    """The same with CUDA graphs."""
    return replace(candidate, name=f"{candidate.name}{GRAPHS}", graphs=True)


class Worker:
    """A candidate's process."""

    def __init__(
        self,
        network: Network,
        candidate: Candidate,
        device: str,
        threads: int | None,
        python: Sequence[str] = (),
    ) -> None:
        self.candidate = candidate
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            step_worker.command(network, candidate, device, threads, python),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            encoding="utf-8",
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer, which has `error` if it failed."""
        self.tell(**request)
        return self.answer()

    def tell(self, **request: Any) -> None:
        """Send a request, of which `answer` waits for the end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer will say that the process has ended
            print(json.dumps(request), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self._said.seek(0)
        last = [line for line in self._said.read().splitlines() if line.strip()][-1:]
        return {"error": f"the process ended with code {self._process.wait()}: {' '.join(last)}"[:300]}

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._said.close()


def measure(network: Network, setting: Setting, workers: list[Worker], rounds: int, steps: int) -> dict[str, Measured]:
    """Prepare the workers one by one, then let them take turns."""
    results = {worker.candidate.name: Measured() for worker in workers}
    for worker in workers:
        began = time.perf_counter()
        answer = worker.ask(prepare=asdict(setting))
        result = results[worker.candidate.name]
        result.failure, result.peak_bytes = answer.get("error"), answer.get("peak_bytes", 0)
        result.loss = answer.get("loss", result.loss)
        print(
            f"  {worker.candidate.name}: {result.failure or 'ready'}, {time.perf_counter() - began:.0f} s", flush=True
        )
    running = [worker for worker in workers if results[worker.candidate.name].failure is None]
    for turn in range(rounds):
        first = turn % max(len(running), 1)
        for worker in [*running[first:], *running[:first]]:
            result = results[worker.candidate.name]
            if result.failure is not None:
                continue
            answer = worker.ask(run=steps)
            result.failure = answer.get("error")
            result.seconds.append(answer.get("seconds", 0.0))
    return results


def missing_peers() -> dict[str, str]:
    """Why a peer is skipped, by its kind."""
    return {package: "not installed" for package in PEERS if peers.version(package) is None}


def run(options: argparse.Namespace) -> int:
    """Measure, print, and write the page."""
    import torch

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA device.")
    if options.graphs and device != "cuda":
        raise ConfigError(f"--graphs: needs --device cuda, not {device}.")
    steps = options.steps or (1 if device == "cpu" else 10)
    names = candidates(options, device)
    missing = missing_peers() if options.peers else {}
    present = [one for one in names if one.kind not in missing]
    for title in options.networks:
        network = replace(
            NETWORKS[title], batch=options.batch or NETWORKS[title].batch, width=options.width or NETWORKS[title].width
        )
        print(f"{network.described()}: starting {len(present)} processes", flush=True)
        workers = [Worker(network, one, device, options.threads) for one in present]
        try:
            started = [worker.answer() for worker in workers]
            for worker, answer in zip(workers, started, strict=True):
                if "error" in answer:
                    raise UserError(f"{worker.candidate.name}: {answer['error']}")
            results: dict[str, dict[str, Measured]] = {}
            for word in options.settings:
                print(f"{network.title}, {word}", flush=True)
                measured = measure(network, setting_named(word), workers, options.rounds, steps)
                results[word] = {
                    one.name: measured.get(one.name, Measured(failure=missing.get(one.kind))) for one in names
                }
        finally:
            for worker in workers:
                worker.close()
        threads = started[0]["threads"]
        report(options, network, results, device, threads, steps)
    return 0


def report(
    options: argparse.Namespace,
    network: Network,
    results: dict[str, dict[str, Measured]],
    device: str,
    threads: int,
    steps: int,
) -> None:
    """Print a network's table, and write it into the page."""
    import torch

    head, rows, notes = table(results, [name for name in TWINS if name == TWINS[0] or options.twin_compile])
    out = console()
    out.print(shown(network.described(), head, rows))
    for note in notes:
        out.print(note, highlight=False, markup=False)
    machine = cpu_name() if device == "cpu" else torch.cuda.get_device_name()
    machine += f", {counted(threads, 'thread')}" if device == "cpu" else ""
    versions = [f"torch {torch.__version__}"]
    versions += [f"{package} {peers.version(package)}" for package in PEERS if options.peers and peers.version(package)]
    made = f"{counted(options.rounds, 'round')} of {counted(steps, 'step')}, {time.strftime('%Y-%m-%d')}"
    about = f"{machine}; {', '.join(versions)}; {made}."
    out.print(about, highlight=False, markup=False)
    if options.write is not None:
        title = f"{network.described()}: {machine}"
        write_page(options.write, title, f"### {title}\n\n{about}\n\n{markdown(head, rows, notes)}")
        print(f"written: {options.write}", flush=True)


if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: run(options_of(sys.argv[1:]))))
