"""Processor time of one layer's forward and backward pass on one thread, relative to `lif` with `bn` in the same round.

    python benchmarks/layer.py
    python benchmarks/layer.py --neurons glif,psn --steps 4 --dtype fp32
    python benchmarks/layer.py --neurons lif --norms bn,tebn,tab

Each neuron with each norm is a candidate: a layer of the compiled engine, in training mode. Candidates take turns in
one process, and each round starts with another one. Numbers are medians over the rounds, of processor time, so a busy
machine disturbs them less than wall-clock time; caches and clock rates are still shared. "copies" is the layer's time
in copies of its input. The lower bound is about 4: the passes move 8 such tensors, a copy moves 2.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from rich.table import Table
from torch import Tensor

from gradspike.cli.reporting import reporting_errors
from gradspike.config.compose import load_config
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.terminal.tables import console

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_layer(neuron: str, norm: str, steps: int, channels: int, engine: str = "compiled") -> SpikingNorm:
    """A layer with the default options of this neuron and norm."""
    config = load_config(
        ["dataset=cifar10", "method=fixed_sg", "recipe=none", f"neuron={neuron}", f"norm={norm}", f"time_steps={steps}"]
    )
    context = LayerContext(steps, config.neuron, config.method, config.norm, engine)
    return SpikingNorm(channels, context).train()


def passes(layer: SpikingNorm, y: Tensor) -> tuple[Callable[[], Tensor], Callable[[Tensor], None]]:
    """The layer's forward pass, and the backward pass from what it returned."""
    arriving = torch.randn_like(y)

    def backward(spikes: Tensor) -> None:
        torch.autograd.backward(spikes, arriving)
        y.grad = None
        for parameter in layer.parameters():
            parameter.grad = None

    return lambda: layer(y), backward


def measure(candidates: Sequence[SpikingNorm], y: Tensor, rounds: int) -> list[tuple[list[float], list[float]]]:
    """Processor seconds of forward and backward pass in each round, for each candidate."""
    calls = [passes(layer, y) for layer in candidates]
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in calls]
    for number in range(-2, rounds):
        for place in range(len(calls)):
            which = (place + number) % len(calls)
            forward, backward = calls[which]
            start = time.process_time()
            spikes = forward()
            middle = time.process_time()
            backward(spikes)
            if number >= 0:
                found[which][0].append(middle - start)
                found[which][1].append(time.process_time() - middle)
    return found


def copy_seconds(y: Tensor, rounds: int) -> float:
    """Median processor time of a copy of y."""
    source, target, times = y.detach(), torch.empty_like(y), []
    for _ in range(rounds):
        start = time.process_time()
        target.copy_(source)
        times.append(time.process_time() - start)
    return statistics.median(times)


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--neurons", default="lif,if,plif,ilif,klif,clif,mpr,trsg,glif,psn,masked_psn,sliding_psn")
    parser.add_argument("--norms", default="bn")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--layout", choices=("channels_last", "contiguous"), default="channels_last")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    y = torch.randn(options.steps * options.batch, options.channels, options.side, options.side)
    layout = torch.channels_last if options.layout == "channels_last" else torch.contiguous_format
    y = y.to(DTYPES[options.dtype], memory_format=layout).requires_grad_()
    names = [(neuron, norm) for norm in options.norms.split(",") for neuron in options.neurons.split(",")]
    names = [("lif", "bn"), *(pair for pair in names if pair != ("lif", "bn"))]
    layers = [build_layer(neuron, norm, options.steps, options.channels) for neuron, norm in names]
    found = measure(layers, y, options.rounds)
    copy = copy_seconds(y, options.rounds)
    table = Table("neuron", "norm", "forward, ms", "backward, ms", "both: ratio", "forward", "backward", "copies")
    bound = found[0]
    for (neuron, norm), (forward, backward) in zip(names, found, strict=True):
        both = [f + b for f, b in zip(forward, backward, strict=True)]
        both_bound = [f + b for f, b in zip(*bound, strict=True)]
        table.add_row(
            neuron,
            norm,
            f"{statistics.median(forward) * 1e3:.2f}",
            f"{statistics.median(backward) * 1e3:.2f}",
            *(
                f"{statistics.median([a / b for a, b in zip(own, other, strict=True)]):.2f}"
                for own, other in ((both, both_bound), (forward, bound[0]), (backward, bound[1]))
            ),
            f"{statistics.median(both) / copy:.0f}",
        )
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: main(sys.argv[1:])))
