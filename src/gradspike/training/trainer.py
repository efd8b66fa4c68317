"""Lightning's trainer, set up for gradspike."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from functools import partial

import lightning as L
import torch
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer import trainer as lightning_trainer
from lightning.pytorch.utilities.seed import isolate_rng

from gradspike.config.schema import ExperimentConfig
from gradspike.loggers.base import RunLogger
from gradspike.terminal.printer import speak
from gradspike.training.checkpoint import AtomicFiles
from gradspike.training.device import device_type
from gradspike.training.kept_memory import keep_released_memory
from gradspike.training.place import ALONE, Place
from gradspike.training.processes import PatientDDP, Processes, is_first_process, take_place
from gradspike.training.watch import Watch

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def build_trainer(
    config: ExperimentConfig,
    loggers: Sequence[RunLogger],
    callbacks: list[L.Callback],
    validate: bool = True,
    watch: Watch | None = None,
    command: Sequence[str] = (),
) -> L.Trainer:
    """Build a trainer without Lightning's progress bar, summary, checkpoints and sampler, which gradspike replaces.

    watch: that of several processes that train together; none for one process. command: what started this one.
    """
    place = ALONE if watch is None else watch.place
    options = config.trainer
    assert options.world_size == place.world_size
    take_place(place)
    # Lightning keeps the random state of all GPUs around its first validation, which would start CUDA in a training on
    # the CPU.
    lightning_trainer.isolate_rng = partial(isolate_rng, include_cuda=options.accelerator != "cpu")  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = options.tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    # In deterministic mode, torch fills each new tensor with NaN, which costs one more pass over memory. It makes reads
    # of uninitialised memory visible and changes no other result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if options.keep_memory and device_type(options.accelerator) == "cpu":
        keep_released_memory()
    return L.Trainer(
        # In a Slurm job, Lightning resumes from hpc_ckpt_*.ckpt in this folder. It writes nothing there.
        default_root_dir=os.devnull,
        max_epochs=options.max_epochs,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=_strategy(config, watch, command),
        precision=PRECISIONS[options.precision],  # type: ignore[arg-type]
        gradient_clip_val=options.gradient_clip,
        accumulate_grad_batches=options.accumulate,
        limit_val_batches=1.0 if validate else 0,
        deterministic=options.deterministic,
        plugins=[AtomicFiles(config.checkpoint.keep), Processes(place)],
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _strategy(config: ExperimentConfig, watch: Watch | None, command: Sequence[str]) -> Strategy | str:
    if config.trainer.world_size == 1:
        return "auto"
    assert watch is not None
    # Statistics over all ranks are the same on all of them; otherwise the first rank's count, as everywhere in torch.
    own = config.norm.sync is False or getattr(config.method, "sync_stats", None) is False
    return PatientDDP(watch, config.trainer.wait_seconds, command, broadcast_buffers=own)


def quieten(place: Place = ALONE) -> None:
    """Hide Lightning's hints. Only the first of several processes prints more than errors."""
    take_place(place)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # it warns about a CUDA compiler without a GPU
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
    speak(is_first_process())
