"""Train some steps of several configurations on one rank of many.

    python ranks_worker.py RANK WORLD_SIZE STORE CASES OUT

CASES is a JSON file of {name: overrides}; rank 0 writes the final states of all cases to OUT. Without a store (`-`) one
process trains alone. Everything in float64, so that only what is computed differs, not how it is rounded.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradspike import ranks, spiking_norm
from gradspike.config.compose import load_config
from gradspike.data.loader import training_batches, training_order
from gradspike.spiking_norm import collect_losses
from gradspike.training.evaluate import build_data
from gradspike.training.module import SpikingClassifier
from gradspike.training.optim import parameter_groups
from helpers.engines import ENGINES

STEPS = 20


def trained(words: list[str], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The backbone's state after STEPS optimiser steps of this rank and the others."""
    config = load_config(words)
    L.seed_everything(config.seed, verbose=False)
    module = SpikingClassifier(config).train().to(dtype)
    data = build_data(config)
    data.setup()
    transform, samples, accumulate = data._transform, data.samples, config.trainer.accumulate
    assert transform is not None
    several = dist.is_initialized()
    model: Any = DistributedDataParallel(module.model, broadcast_buffers=False) if several else module.model
    optimizer = torch.optim.SGD(parameter_groups(module.model, config.optimizer), momentum=0.9)
    rank = dist.get_rank() if several else 0
    order = training_order(samples.indices("train"), config.seed, 0)
    batches = training_batches(order, config.dataset.batch_size, rank, ranks.world_size(), accumulate)
    for number, part in enumerate(batches[: STEPS * accumulate]):
        inputs = transform(torch.from_numpy(samples.inputs[part]), torch.from_numpy(part), 0).to(dtype)
        labels: Tensor = torch.from_numpy(samples.labels[part])
        if module.mixing is not None:
            inputs, labels = module.mixing(inputs, labels, 0, number)
            labels = labels.to(dtype)
        ends = (number + 1) % accumulate == 0
        with nullcontext() if ends or not several else model.no_sync(), collect_losses() as extra:
            loss = (module.criterion(model(inputs), labels) + extra.mean()) / accumulate
            loss.backward()
        if ends:
            nn.utils.clip_grad_norm_(module.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return dict(module.model.state_dict())


def main() -> None:
    rank, world_size, store, cases, out = sys.argv[1:]
    if engine := os.environ.get("GRADSPIKE_TEST_ENGINE"):
        spiking_norm.load_engine = lambda _: ENGINES[engine]
    if store != "-":
        dist.init_process_group(
            "gloo", store=dist.FileStore(store, int(world_size)), rank=int(rank), world_size=int(world_size)
        )
    states = {}
    for name, words in json.loads(Path(cases).read_text()).items():
        state = trained(words)
        if store != "-":
            for key, value in state.items():
                if "GRADSPIKE_TEST_UNEQUAL" not in os.environ and not key.endswith("width_clamps"):
                    same = ranks.gathered(value.double())
                    assert (same == same[0]).all(), f"{name}: {key} differs between ranks"
        states[name] = state
    if rank == "0":
        torch.save(states, out)
    if store != "-":
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
