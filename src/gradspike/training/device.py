"""Whether this machine has the devices that a configuration asks for."""

from __future__ import annotations

import logging
import platform

import torch

from gradspike.config.schema import TrainerConfig
from gradspike.errors import UserError

log = logging.getLogger("gradspike")


def check_device(options: TrainerConfig) -> None:
    """Raise UserError if a device is missing; warn if the CPU only emulates bf16."""
    gpus = torch.cuda.device_count()
    wants_gpu = options.accelerator == "gpu" or (options.accelerator == "auto" and gpus > 0)
    if wants_gpu and gpus < options.devices:
        raise UserError(
            f"trainer.accelerator={options.accelerator} trainer.devices={options.devices}: this machine has {gpus} "
            "CUDA devices. Use trainer.accelerator=cpu or fewer devices."
        )
    if not wants_gpu and options.precision == "bf16" and not cpu_has_bf16():
        log.warning(
            "trainer.precision=bf16: this CPU has no bf16 arithmetic (AVX512-BF16 or AMX). A convolution takes several "
            "times as long as with trainer.precision=fp32."
        )


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies in bf16. With AVX-512 alone oneDNN claims to, but converts to float32 first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
