"""The memory of a training step: tensors kept for its backward pass, by kind of layer, and all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradspike.config.schema import ExperimentConfig
from gradspike.cost.counting import OUTSIDE, count_saved
from gradspike.training.module import SpikingClassifier


def memory_of(
    config: ExperimentConfig,
    module: SpikingClassifier,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    kind_of: Callable[[nn.Module], str],
) -> dict[str, int]:
    """Bytes kept for the backward pass by kind of layer (each storage once, at the first layer that keeps it), and of
    weights and buffers, gradients, optimiser state and the batch.
    """
    device = next(module.model.parameters()).device
    inputs = batch["input"].to(device)
    held: dict[str, int] = {}
    found = count_saved(module.model, inputs, config.trainer.precision, apart=[inputs])
    for name, record in found.records.items():
        layer = module.model if name == OUTSIDE else module.model.get_submodule(name)
        kind = f"kept by {kind_of(layer)}"
        held[kind] = held.get(kind, 0) + record.saved
    parameters = list(module.model.parameters())
    held["weights, buffers"] = _bytes([*parameters, *module.model.buffers()])
    held["gradients"] = _bytes([one for one in parameters if one.requires_grad])
    held["optimiser state"] = _bytes([value for state in optimizer.state.values() for value in state.values()])
    held["batch"] = _bytes(list(batch.values()))
    return {what: size for what, size in held.items() if size}


def _bytes(values: list[Any]) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))
