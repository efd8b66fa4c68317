"""Lightning's trainer as we use it, and the check of the device before it is built."""

from __future__ import annotations

import logging
import platform
import warnings

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy

from gradspike.config.schema import ExperimentConfig, TrainerConfig
from gradspike.errors import UserError
from gradspike.terminal.printer import LogPrinter
from gradspike.training.callbacks.checkpoints import AtomicFiles, Checkpoints
from gradspike.training.processes import is_first_process

log = logging.getLogger("gradspike")

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def build_trainer(
    config: ExperimentConfig, loggers: list[Logger], callbacks: list[L.Callback], validate: bool = True
) -> L.Trainer:
    """Lightning's trainer without the parts that we do ourselves (bar, summary, checkpoints, sampler)."""
    options = config.trainer
    return L.Trainer(
        max_epochs=options.max_epochs,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=_strategy(config),
        precision=PRECISIONS[options.precision],  # type: ignore[arg-type]
        gradient_clip_val=options.gradient_clip,
        accumulate_grad_batches=options.accumulate,
        limit_val_batches=1.0 if validate else 0,
        deterministic=options.deterministic,
        plugins=[AtomicFiles()],
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, Checkpoints) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _strategy(config: ExperimentConfig) -> Strategy | str:
    if config.trainer.world_size == 1:
        return "auto"
    # Statistics over all ranks are the same on all of them; otherwise the first rank's count, as everywhere in torch.
    own = config.norm.sync is False or getattr(config.method, "sync_stats", None) is False
    return DDPStrategy(broadcast_buffers=own)


def check_device(options: TrainerConfig) -> None:
    """Raises UserError when the machine does not have what the configuration asks for; warns where it only pretends."""
    gpus = torch.cuda.device_count()
    wants_gpu = options.accelerator == "gpu" or (options.accelerator == "auto" and gpus > 0)
    if wants_gpu and gpus < options.devices:
        raise UserError(
            f"trainer.accelerator={options.accelerator} trainer.devices={options.devices}: this machine has {gpus} "
            "CUDA devices. Use trainer.accelerator=cpu or fewer devices."
        )
    if not wants_gpu and options.precision == "bf16" and not cpu_has_bf16():
        log.warning(
            "trainer.precision=bf16: this CPU has no bf16 arithmetic (AVX512-BF16 or AMX); a convolution takes several "
            "times longer than with trainer.precision=fp32."
        )


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies in bf16. With AVX-512 alone oneDNN says yes, and widens every number first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def quieten() -> None:
    """Keep Lightning's hints and advice out of the output; errors still come through."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # its finding CUDA's compiler but no GPU
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
    log.setLevel(logging.INFO if is_first_process() else logging.ERROR)
    if not any(isinstance(handler, LogPrinter) for handler in log.handlers):
        log.addHandler(LogPrinter())
    log.propagate = False
