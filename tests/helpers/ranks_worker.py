"""Train some steps of several configurations on several ranks: `python ranks_worker.py PLAN FOLDER`.

PLAN is a JSON list of {"name", "world_size", "cases": {name: overrides}, "engine", "unequal", "timeout", "gradients",
"dtype", "steps"}; FOLDER gets a file of final states, {case: state}, for each entry; with "gradients", of the gradients
of three passes. Ranks are forks of this process, which imports everything and composes each configuration once. All but
"gradients" is in float64 unless "dtype" is "float32", so that only what is computed differs, not how it is rounded.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import timm.data  # noqa: F401  takes seconds, and a case with mixup would import it on each rank
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradspike import ranks, spiking_norm
from gradspike.collected import collect_losses
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.data.loader import training_batches, training_order
from gradspike.training.build import build_data
from gradspike.training.callbacks.finite_differences import choose
from gradspike.training.callbacks.weight_average import WeightAverage
from gradspike.training.gradients import averaged_in_order
from gradspike.training.module import SpikingClassifier
from gradspike.training.optim import parameter_groups
from helpers.engines import ENGINES

STEPS = 4


@functools.cache
def composed(*words: str) -> ExperimentConfig:
    return load_config(list(words))


def trained(words: list[str], dtype: torch.dtype, steps: int) -> dict[str, Tensor]:
    """The backbone's state after some optimiser steps of this rank and the others, and its average."""
    config = composed(*words)
    L.seed_everything(config.seed, verbose=False)
    module = SpikingClassifier(config).train().to(dtype)
    data = build_data(config)
    data.setup()
    transform, samples, accumulate = data._transform, data.samples, config.trainer.accumulate
    assert transform is not None
    several = dist.is_initialized()
    model: Any = distributed(module.model) if several else module.model
    optimizer = torch.optim.SGD(parameter_groups(module.model, config.optimizer), momentum=0.9)
    rank = dist.get_rank() if several else 0
    average = None if config.trainer.ema is None else WeightAverage(config.trainer.ema)
    trainer: Any = SimpleNamespace(accumulate_grad_batches=accumulate, global_step=0)
    if average is not None:
        average.on_fit_start(trainer, module)

    def of_epoch(epoch: int) -> list[tuple[int, int, Any]]:
        order = training_order(samples.indices("train"), config.seed, epoch)
        batches = training_batches(order, config.dataset.batch_size, rank, ranks.world_size(), accumulate)
        return [(epoch, number, part) for number, part in enumerate(batches)]

    parts = itertools.chain.from_iterable(map(of_epoch, itertools.count()))
    for epoch, number, part in itertools.islice(parts, steps * accumulate):
        inputs = transform(torch.from_numpy(samples.inputs[part]), torch.from_numpy(part), epoch).to(dtype)
        labels: Tensor = torch.from_numpy(samples.labels[part])
        if module.mixing is not None:
            inputs, labels = module.mixing(inputs, labels, epoch, number)
            labels = labels.to(dtype)
        if number == 0:
            choose(module, inputs, labels, epoch)
        ends = (number + 1) % accumulate == 0
        with nullcontext() if ends or not several else model.no_sync(), collect_losses() as extra:
            loss = (module.criterion(model(inputs), labels) + extra.mean()) / accumulate
            loss.backward()
        if ends:
            nn.utils.clip_grad_norm_(module.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            trainer.global_step += 1
        if average is not None:
            average.on_train_batch_end(trainer, module, None, None, number)
    saved: dict[str, Any] = {
        "state_dict": {f"model.{name}": value for name, value in module.model.state_dict().items()}
    }
    if average is not None:
        average.on_save_checkpoint(trainer, module, saved)
        saved["state_dict"] |= {f"training {name}": value for name, value in saved["training_state"].items()}
    state: dict[str, Tensor] = saved["state_dict"]
    return state


def distributed(network: nn.Module) -> DistributedDataParallel:
    """The network as a training on a CPU wraps it."""
    model = DistributedDataParallel(network, broadcast_buffers=False)
    model.register_comm_hook(None, averaged_in_order)
    return model


def gradients_of_passes(words: list[str]) -> dict[str, dict[str, Tensor]]:
    """The gradients of the same weights and samples, in float32, in each of three backward passes."""
    config = composed(*words)
    L.seed_everything(config.seed, verbose=False)
    module = SpikingClassifier(config).train()
    data = build_data(config)
    data.setup()
    transform, samples = data._transform, data.samples
    assert transform is not None
    part = np.arange(8) + 8 * dist.get_rank()
    inputs = transform(torch.from_numpy(samples.inputs[part]), torch.from_numpy(part), 0)
    labels: Tensor = torch.from_numpy(samples.labels[part])
    model = distributed(module.model)
    found = {}
    for number in range(3):
        model.zero_grad()
        module.criterion(model(inputs), labels).backward()
        parameters = module.model.named_parameters()
        found[str(number)] = {name: one.grad.clone() for name, one in parameters if one.grad is not None}
    return found


def rank_of(rank: int, entry: dict[str, Any], folder: Path) -> None:
    """What one rank does for an entry of the plan."""
    torch.set_num_threads(1)
    if entry.get("engine"):
        spiking_norm.load_engine = lambda _: ENGINES[entry["engine"]]
    world_size, several = entry["world_size"], entry["world_size"] > 1
    if several:
        store = dist.FileStore(str(folder / f"{entry['name']}.store"), world_size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    states = {}
    for name, words in entry["cases"].items():
        if entry.get("gradients"):
            states |= gradients_of_passes(words)
            continue
        state = states[name] = trained(words, getattr(torch, entry.get("dtype", "float64")), entry.get("steps", STEPS))
        for key, value in state.items():
            if several and not entry.get("unequal") and not key.endswith("width_clamps"):
                same = ranks.gathered(value.double())
                assert (same == same[0]).all(), f"{name}: {key} differs between ranks"
    if rank == 0:
        torch.save(states, folder / f"{entry['name']}.pt")
    if several:
        dist.destroy_process_group()


def main() -> None:
    plan, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    context = multiprocessing.get_context("fork")
    for entry in plan:
        for words in entry["cases"].values():
            composed(*words)
        processes = [context.Process(target=rank_of, args=(r, entry, folder)) for r in range(entry["world_size"])]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=entry.get("timeout", 300))
        if any(process.exitcode != 0 for process in processes):
            for process in processes:
                process.kill()
            sys.exit(f"{entry['name']}: {[process.exitcode for process in processes]}")


if __name__ == "__main__":
    main()
