"""Norm and neuron of single layers on CUDA, compared with memory bandwidth: Triton kernels and compiled kernels.

    python benchmarks/triton_bandwidth.py [--steps 2] [--batch 128] [--repeats 50]

The layers are those of ResNet-19 at full width. The byte counts are lower bounds: in training, the forward pass reads
the layer's input twice (statistics, then spikes) and writes spikes; the backward pass reads input and gradient twice
(sums, then gradient) and writes a gradient. A plain copy of the same tensor is measured for comparison. A kernel that
reaches the bandwidth of the copy cannot get faster.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from torch import Tensor

from gradspike.engine import compiled
from gradspike.engine.fused import Kernels, arranged
from gradspike.engine.norm_formulas import inverse_std
from gradspike.engine.records import Affine, Arriving, Inputs, Spec, Wanted
from gradspike.surrogate import SURROGATES

LAYERS = ((128, 32), (256, 16), (512, 8))
"""Channels and side of ResNet-19's stages."""

FORWARD, BACKWARD, COPY = 3, 5, 2
"""Minimum number of moved tensors of the input's size."""

Arrangement = Literal["rows", "planes"]


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


def main(words: list[str], clock: Callable[[Callable[[], object], int], float] = seconds, device: str = "cuda") -> int:
    """Print one line per layer, dtype, layout, kernel and pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=2, help="T")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args(words)
    if min(options.steps, options.repeats) < 1 or options.batch < 2:
        parser.error("--steps and --repeats must be at least 1, --batch 2.")
    if device == "cuda" and not torch.cuda.is_available():
        print("No CUDA device was found. Times of the interpreter on a CPU are meaningless.", file=sys.stderr)
        return 1
    from gradspike.engine.triton import engine as triton_engine

    engines: dict[str, Kernels] = {"triton": triton_engine.run.kernels, "compiled": compiled.run.kernels}
    where = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    print(
        f"{where}, T = {options.steps}, batch {options.batch}, median of {options.repeats}, GB/s of the minimum bytes"
    )
    layouts: tuple[Arrangement, ...] = ("rows", "planes")
    for (channels, side), dtype, layout in itertools.product(LAYERS, (torch.bfloat16, torch.float32), layouts):
        y = torch.randn(options.steps * options.batch, channels, side, side, device=device).to(dtype)
        if layout == "rows":
            y = y.contiguous(memory_format=torch.channels_last)
        size = y.numel() * y.element_size()
        target = torch.empty_like(y)
        took = clock(lambda y=y, target=target: target.copy_(y), options.repeats)  # type: ignore[misc]
        print(f"{channels} x {side} x {side}, {dtype}, {layout}: copy {COPY * size / took / 1e9:.0f} GB/s")
        for engine, kernels in engines.items():
            for what, (call, moved) in layer_calls(kernels, y.unflatten(0, (options.steps, -1)), layout).items():
                took = clock(call, options.repeats)
                print(f"  {engine:<9} {what:<9} {1e6 * took:8.0f} us {moved * size / took / 1e9:6.0f} GB/s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
