"""Norm and neuron of single layers on CUDA, compared with memory bandwidth: Triton kernels and compiled kernels.

    python benchmarks/triton_bandwidth.py [--steps 2] [--batch 128] [--repeats 50]

The layers are those of ResNet-19 at full width. The kernels are those of training: without gradients, in torch's
deterministic mode. The byte counts are lower bounds: in training, the forward pass reads
the layer's input twice (statistics, then spikes) and writes spikes; the backward pass reads input and gradient twice
(sums, then gradient) and writes a gradient. A plain copy of the same tensor is measured for comparison. A kernel that
reaches the bandwidth of the copy cannot get faster.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from torch import Tensor

from gradspike.engine import compiled
from gradspike.engine.arrangement import arranged
from gradspike.engine.fused_layer import Kernels
from gradspike.engine.norm_formulas import inverse_std
from gradspike.engine.records import Affine, Arriving, Inputs, Spec, Wanted
from gradspike.surrogate import SURROGATES

LAYERS = ((128, 32), (256, 16), (512, 8))
"""Channels and side of ResNet-19's stages."""

FORWARD, BACKWARD, COPY = 3, 5, 2
"""Minimum number of moved tensors of the input's size."""

Arrangement = Literal["rows", "planes"]
FORMS: tuple[tuple[torch.dtype, Arrangement], ...] = (
    (torch.bfloat16, "rows"),
    (torch.bfloat16, "planes"),
    (torch.float32, "rows"),
    (torch.float32, "planes"),
)


def layer_calls(kernels: Kernels, y: Tensor, arrangement: Arrangement) -> dict[str, tuple[Callable[[], object], int]]:
    """Forward and backward pass of one layer in training with input y [T, B, C, H, W], and the tensors each moves."""
    steps, channels, device = y.shape[0], y.shape[2], y.device
    values = arranged(y, arrangement)
    spec = Spec(steps, arrangement, "batch", 1e-5, SURROGATES["rectangular"])
    decay = torch.tensor(0.2, device=device)
    gain, bias = torch.ones(channels, device=device), torch.zeros(channels, device=device)
    thresholds, widths = torch.full((steps,), 0.5, device=device), torch.ones(steps, device=device)
    inputs = Inputs(values, Affine(gain, bias), thresholds, widths, (decay,))
    fired = kernels.forward(inputs, None, spec)
    assert fired.batch_mean is not None
    assert fired.batch_variance is not None
    affine = Affine(gain, bias, fired.batch_mean, inverse_std(fired.batch_variance, spec))
    kept, arriving = inputs._replace(affine=affine), Arriving(torch.randn_like(values))
    wanted = Wanted(affine=True, thresholds=False, widths=False, values=(True,))
    return {
        "forward": (lambda: kernels.forward(inputs, None, spec), FORWARD),
        "backward": (lambda: kernels.backward(kept, arriving, spec, wanted), BACKWARD),
    }


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of a call on the device, between events, after three warm-up calls."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        # Keeps the device busy while the host gets ahead, so that launch time is not measured.
        torch.cuda._sleep(1_000_000)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


@dataclass(frozen=True)
class Row:
    """One measurement: `what` is copy, forward or backward; `engine` is empty for a copy."""

    channels: int
    side: int
    dtype: str
    arrangement: str
    engine: str
    what: str
    seconds: float
    bytes_per_second: float

    @property
    def layer(self) -> str:
        return f"{self.channels} x {self.side} x {self.side}, {self.dtype}, {self.arrangement}"


def measured(
    steps: int,
    batch: int,
    engines: Mapping[str, Kernels],
    clock: Callable[[Callable[[], object]], float],
    device: str,
    layers: Sequence[tuple[int, int]] = LAYERS,
    forms: Sequence[tuple[torch.dtype, Arrangement]] = FORMS,
) -> Iterator[Row]:
    """Measure all layers in all forms: a copy, then each pass of each engine."""
    for (channels, side), (dtype, layout) in itertools.product(layers, forms):
        y = torch.randn(steps * batch, channels, side, side, device=device).to(dtype)
        if layout == "rows":
            y = y.contiguous(memory_format=torch.channels_last)
        size, target = y.numel() * y.element_size(), torch.empty_like(y)

        def row(
            engine: str,
            what: str,
            call: Callable[[], object],
            moved: int,
            facts: tuple[int, int, str, str] = (channels, side, str(dtype).removeprefix("torch."), layout),
            size: int = size,
        ) -> Row:
            took = clock(call)
            return Row(*facts, engine, what, took, moved * size / took)

        yield row("", "copy", partial(target.copy_, y), COPY)
        for engine, kernels in engines.items():
            with as_in_training():
                calls = layer_calls(kernels, y.unflatten(0, (steps, -1)), layout)
                rows = [row(engine, what, call, moved) for what, (call, moved) in calls.items()]
            yield from rows


@contextmanager
def as_in_training() -> Iterator[None]:
    """The state in which an engine calls its kernels: inside an autograd function, and in deterministic mode. Otherwise
    torch.compile would make others: it compiles again where gradients are recorded.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def all_engines() -> dict[str, Kernels]:
    """The kernels by engine."""
    from gradspike.engine.triton import engine as triton_engine

    return {"triton": triton_engine.run.kernels, "compiled": compiled.run.kernels}


def main(words: list[str]) -> int:
    """Print one line per layer, dtype, layout, kernel and pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=2, help="T")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args(words)
    if min(options.steps, options.repeats) < 1 or options.batch < 2:
        parser.error("--steps and --repeats must be at least 1, --batch 2.")
    if not torch.cuda.is_available():
        print("No CUDA device was found. Times of the interpreter on a CPU are meaningless.", file=sys.stderr)
        return 1
    print(
        f"{torch.cuda.get_device_name()}, T = {options.steps}, batch {options.batch}, median of {options.repeats}, "
        "GB/s of the minimum bytes"
    )
    clock = partial(seconds, repeats=options.repeats)
    for row in measured(options.steps, options.batch, all_engines(), clock, "cuda"):
        speed = f"{row.bytes_per_second / 1e9:6.0f} GB/s"
        if row.what == "copy":
            print(f"{row.layer}: copy {speed.strip()}")
        else:
            print(f"  {row.engine:<9} {row.what:<9} {1e6 * row.seconds:8.0f} us {speed}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
