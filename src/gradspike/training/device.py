"""The device of a training, and whether this machine has what a configuration asks for."""

from __future__ import annotations

import logging
import platform
import re
import warnings
from collections.abc import Callable, Sequence

import torch

from gradspike.config.schema import TrainerConfig
from gradspike.errors import UserError
from gradspike.private_names import cpu_flags, found
from gradspike.shown import counted

log = logging.getLogger("gradspike")

_NO_GPU = ("Found no NVIDIA driver", "No CUDA GPUs are available", "Torch not compiled with CUDA")
"""How torch begins to say that there is no GPU, rather than one that it cannot use."""


def device_type(accelerator: str) -> str:
    """What `trainer.accelerator` means on this machine: "cpu", "cuda" or "mps". Leaves CUDA alone."""
    if accelerator == "cpu":
        return "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # check_device reports a GPU that cannot be used
        if torch.cuda.is_available():
            return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(options: TrainerConfig, section: str = "trainer.") -> None:
    """Raise UserError if a device is missing or torch cannot use it; warn if `auto` leaves a GPU unused or the CPU only
    emulates bf16.

    section: what stands before `accelerator=` on the command line. The error says what to type instead, also on resume.
    """
    device = device_type(options.accelerator)
    if options.accelerator != "cpu":
        _check_gpus(options, device, section)
    if device == "cpu" and options.precision == "bf16" and not cpu_has_bf16():
        log.warning(
            "trainer.precision=bf16: this CPU has no bf16 arithmetic (AVX512-BF16 or AMX). A convolution takes several "
            "times as long as with trainer.precision=fp32."
        )


def _check_gpus(options: TrainerConfig, device: str, section: str) -> None:
    problem = _cuda_problem() if device == "cpu" else None
    if problem and options.accelerator == "auto":
        log.warning("%s Training on the CPU.", problem)
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    wants_gpu = device == "cuda" or (options.accelerator == "gpu" and device != "mps")
    if wants_gpu and gpus < options.devices:
        parts = options.devices * options.accumulate
        fewer = max((number for number in range(1, gpus + 1) if parts % number == 0), default=0)
        ways = [f"{section}devices={fewer} {section}accumulate={parts // fewer}"] if fewer else []
        devices = f" {section}devices={options.devices}" if options.devices > 1 else ""
        raise UserError(
            f"{section}accelerator={options.accelerator}{devices}: this machine has "
            f"{counted(gpus, 'CUDA device')}. {problem + ' ' if problem else ''}"
            f"Use {' or '.join([*ways, f'{section}accelerator=cpu'])}."
        )
    built_for = torch.cuda.get_arch_list() if device == "cuda" else []
    for index in range(options.devices if built_for else 0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a page on the same matter
            capability = torch.cuda.get_device_capability(index)
        if not runs_on(capability, built_for):
            name = torch.cuda.get_device_name(index)
            raise UserError(
                f"{section}accelerator={options.accelerator}: {name} has compute capability "
                f"{capability[0]}.{capability[1]}, but torch {torch.__version__} was built for {', '.join(built_for)}. "
                f"Install a torch for this GPU or use {section}accelerator=cpu."
            )


def runs_on(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Whether code for these architectures (sm_86, compute_90) runs on a GPU of this compute capability.

    Machine code (sm) runs on later GPUs of the same major version; PTX (compute) is compiled for any later one.
    """
    card = 10 * capability[0] + capability[1]
    for architecture in built_for:
        kind, number = re.match(r"(sm|compute)_(\d+)", architecture).groups()  # type: ignore[union-attr]
        code = int(number)
        if code <= card and (kind == "compute" or code // 10 == card // 10):
            return True
    return False


def _cuda_problem() -> str | None:
    """A sentence on why torch cannot use the GPUs of this machine, such as an old driver; None if there are none."""
    if torch.version.cuda is None:
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        if reason.startswith(_NO_GPU):
            return None
        first, _, _ = reason.partition(". ")
        return f"CUDA cannot be used: {first.rstrip('.')}."
    return None


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies in bf16. With only AVX-512, oneDNN says so but converts to float32 first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    vectors: Callable[[], bool] = found("torch.cpu._is_avx512_bf16_supported", lambda: "avx512_bf16" in cpu_flags())
    tiles: Callable[[], bool] = found("torch.cpu._is_amx_tile_supported", lambda: "amx_tile" in cpu_flags())
    return vectors() or tiles()
