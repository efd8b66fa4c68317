"""Compile the Triton engine's kernels for CUDA, where there is no GPU: `test_engine_triton.py` runs this as a script.

The interpreter accepts more than the compiler does. Triton and the ptxas it brings need no device to make machine code;
only the launch is left out. Prints a line for each kernel: name, registers and spilled bytes of a thread.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from gradspike.engine.records import Affine, Arriving, Inputs, Spec, Step, Wanted
from gradspike.engine.triton import engine as triton_engine
from gradspike.surrogate import SURROGATES

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
CHANNELS = 64


class NoDevice:
    """A driver that answers Triton's questions before a launch, as for an H100."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def compile_only(self: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
    """Replaces JITFunction.run."""
    kernel = launch(self, *arguments, grid=grid, warmup=True, **options)
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(kernel.asm["ptx"])
        file.flush()
        words = [str(PTXAS), "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stderr
    (registers,) = re.findall(r"Used (\d+) registers", told)
    (spilled,) = re.findall(r"(\d+) bytes spill stores", told)
    print(self.fn.__name__, registers, spilled)


def forward_and_backward(
    kernels: Any, time_steps: int, how: Any, dtype: torch.dtype, shape: str, moments: bool = False, **options: Any
) -> None:
    y = torch.zeros(time_steps, 16, 64, 64, dtype=dtype)
    spec = Spec(time_steps, how, "batch", 1e-5, SURROGATES[shape], **options)
    channel, decay = torch.zeros(CHANNELS), torch.tensor(0.5)
    thresholds, widths, steps = torch.ones(time_steps, CHANNELS), torch.ones(time_steps), torch.ones(time_steps)
    inputs = Inputs(y, Affine(channel, channel), thresholds, widths, (decay,))
    kernels.forward(inputs, thresholds if moments else None, spec)
    arriving = Arriving(y, steps, steps, steps) if moments else Arriving(y, mean=steps)
    wanted = Wanted(True, thresholds=moments, widths=True, values=(True,))
    inputs = inputs._replace(affine=Affine(channel, channel, channel, channel))
    kernels.backward(inputs, arriving, spec, wanted)


def step_by_step(kernels: Any) -> None:
    y, u = torch.zeros(1, 16, 64, 64), torch.zeros(16, 64, 64)
    spec = Spec(2, "rows", "given", 1e-5, SURROGATES["triangular"])
    channel, decay = torch.zeros(CHANNELS), torch.tensor(0.5)
    affine = Affine(channel, channel, channel, channel)
    step = Step(u, decay, decay, u)
    kernels.advance(y, None, affine, (decay,), spec)
    kernels.advance(y, step, affine, (decay,), spec)
    kernels.finish(step, spec)


launch = JITFunction.run

if __name__ == "__main__":
    triton.runtime.driver.set_active(NoDevice())
    JITFunction.run = compile_only
    triton_engine.triton_problem = lambda device: None
    kernels = triton_engine.TritonKernels()
    if sys.argv[1:] == ["shapes"]:
        for name in SURROGATES:
            forward_and_backward(kernels, 1, "rows", torch.float32, name, smooth=True)
    else:
        forward_and_backward(kernels, 2, "rows", torch.bfloat16, "rectangular", detach_reset=True)
        forward_and_backward(kernels, 4, "planes", torch.float32, "dspike", moments=True)
        step_by_step(kernels)
