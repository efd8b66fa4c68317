"""Time and peak memory of a training step of the backbones of the field, against the same networks in SpikingJelly.

    python benchmarks/backbones.py
    python benchmarks/backbones.py --networks spikformer,qkformer --rounds 15
    python benchmarks/backbones.py --write docs/performance.md

The released codes of Spikformer, QKFormer and the Spike-driven Transformer use SpikingJelly's LIF nodes; so do most
codes for the other networks. Each network is built twice with the same weights: with gradspike's layers on the compiled
engine, and with SpikingJelly's multi-step LIFNode (torch backend), torch's batch norm and pooling, and the products of
attention in the released order. Neuron and surrogate are those of the transformers' codes: decay 0.5, input scaled by
0.5, hard reset without gradient, Sigmoid(4). `tests/project/test_bench_step.py` compares loss and gradients of both.

Both processes of a network stay alive and take turns. A ratio is of two numbers of the same round: SpikingJelly's over
ours, so above 1 ours is faster. Warm-up and compilation are not counted. See step.py for what a step is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import peers
from gradspike.cli.reporting import reporting_errors
from gradspike.errors import ConfigError, UserError
from gradspike.shown import counted
from gradspike.terminal.tables import console
from step import SETTINGS, Worker, chosen, measure
from step_table import Measured, check_page, cpu_name, markdown, setting_named, shown, spread, write_page
from step_worker import Candidate, Network

RELEASED = (
    "dataset=cifar10", "norm=bn", "neuron.decay=0.5", "neuron.decay_input=true", "neuron.detach_reset=true",
    "method.surrogate=sigmoid",
)  # fmt: skip
"""Data, norm, neuron and surrogate of all networks."""
T = 4
NETWORKS = {
    "spikformer": Network(
        "Spikformer 2-256", (*RELEASED, "model=spikformer", "model.depth=2", "model.dim=256", "model.heads=8"), T, 4
    ),
    "sdt": Network("Spike-driven Transformer 2-256", (*RELEASED, "model=sdt", "model.dim=256"), T, 4),
    "qkformer": Network("QKFormer 4-192", (*RELEASED, "model=qkformer", "model.dim=192"), T, 4),
    "ms_resnet18": Network("MS-ResNet-18", (*RELEASED, "model=ms_resnet18"), T, 4, 0.25),
    "vgg9": Network("VGG-9", (*RELEASED, "model=vgg9"), T, 4, 0.5),
}
OURS = Candidate("ours", "ours", "compiled")
PEER = Candidate("SpikingJelly", "spikingjelly", backend="torch")
LARGEST_DIFFERENCE = 0.01
"""Of the losses after one step, relative: float32 rounds differently, and a spike may flip."""


def options_of(words: Sequence[str]) -> argparse.Namespace:
    """The options, checked. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--networks", default=",".join(NETWORKS), help="choose from " + ", ".join(NETWORKS))
    parser.add_argument("--setting", default="fp32-channels_last", help=f"choose from {', '.join(SETTINGS)}")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each candidate, a step each")
    parser.add_argument("--batch", type=int, help="samples; default: 4")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's (OMP_NUM_THREADS)")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write the table into this page, such as docs/performance.md"
    )
    options = parser.parse_args(words)
    options.networks = chosen("networks", options.networks, NETWORKS)
    (options.setting,) = chosen("setting", options.setting, SETTINGS)[:1]
    for name in ("rounds", "batch", "threads"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name} {value}: must be greater than 0.")
    if options.batch == 1:
        raise ConfigError("--batch 1: batch norm needs two samples or more.")
    if peers.version("spikingjelly") is None:
        raise UserError("SpikingJelly is not installed: pip install 'gradspike[bench]'.")
    if options.write is not None:
        check_page(options.write)
    return options


def compared(network: Network, options: argparse.Namespace) -> tuple[Measured, Measured, int]:
    """Ours, SpikingJelly's and the number of threads. Raises UserError if one fails, or if their losses differ."""
    workers = [Worker(network, one, "cpu", options.threads) for one in (OURS, PEER)]
    try:
        for worker, answer in zip(workers, started := [worker.answer() for worker in workers], strict=True):
            if "error" in answer:
                raise UserError(f"{worker.candidate.name}: {answer['error']}")
        results = measure(network, setting_named(options.setting), workers, options.rounds, steps=1)
    finally:
        for worker in workers:
            worker.close()
    ours, theirs = (results[one.name] for one in (OURS, PEER))
    for name, one in results.items():
        if one.failure is not None:
            raise UserError(f"{network.title}, {name}: {one.failure}")
    if abs(ours.loss - theirs.loss) > LARGEST_DIFFERENCE * abs(theirs.loss):
        raise UserError(
            f"{network.title}: the loss after a step is {ours.loss} with ours, {theirs.loss} with SpikingJelly."
        )
    return ours, theirs, int(started[0]["threads"])


def row(network: Network, ours: Measured, theirs: Measured) -> list[str]:
    """The cells of a network."""
    middle, low, high = spread([b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True)])
    return [
        network.described(),
        f"{1000 * spread(ours.seconds)[0]:,.0f} ms",
        f"{1000 * spread(theirs.seconds)[0]:,.0f} ms",
        f"{middle:.2f} ({low:.2f} to {high:.2f})",
        f"{theirs.peak_bytes / ours.peak_bytes:.2f}",
    ]


def run(options: argparse.Namespace) -> int:
    """Measure, print, and write the page."""
    import torch

    head = ["network", "ours", "SpikingJelly", "SpikingJelly / ours: time", "memory"]
    rows, threads = [], 0
    for name in options.networks:
        network = replace(NETWORKS[name], batch=options.batch or NETWORKS[name].batch)
        print(network.described(), flush=True)
        ours, theirs, threads = compared(network, options)
        rows.append(row(network, ours, theirs))
    out = console()
    out.print(shown(options.setting, head, rows))
    machine = f"{cpu_name()}, {counted(threads, 'thread')}"
    about = (
        f"{options.setting}; {machine}; torch {torch.__version__}, spikingjelly {peers.version('spikingjelly')}; "
        f"{counted(options.rounds, 'round')} of 1 step, {time.strftime('%Y-%m-%d')}."
    )
    out.print(about, highlight=False, markup=False)
    if options.write is not None:
        key = f"backbones, {options.setting}: {machine}"
        title = f"### The backbones of the field against SpikingJelly: {machine}"
        write_page(options.write, key, f"{title}\n\n{about}\n\n{markdown(head, rows, [])}".rstrip())
        print(f"written: {options.write}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: run(options_of(sys.argv[1:]))))
