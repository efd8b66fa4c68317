"""The optimiser and its parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gradspike.config import AdamWConfig, SgdConfig
from gradspike.spiking_norm import lr_multipliers, undecayed_parameters


def parameter_groups(model: nn.Module, config: SgdConfig | AdamWConfig) -> list[dict[str, Any]]:
    """Parameters grouped by weight decay and learning rate.

    Norm gains and biases, neuron decay and surrogate width have no weight decay unless `decay_all`: it would pull them
    towards 0, where a gain makes its layer silent and a width divides by zero. A method may ask for its own multiple of
    the rate.
    """
    undecayed = set() if config.decay_all else undecayed_parameters(model)
    multipliers = lr_multipliers(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        key = (0.0 if name in undecayed else config.weight_decay, config.lr * multipliers.get(name, 1.0))
        groups.setdefault(key, []).append(parameter)
    return [{"params": parameters, "weight_decay": decay, "lr": lr} for (decay, lr), parameters in groups.items()]


def build_optimizer(config: SgdConfig | AdamWConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over the groups of `parameter_groups`."""
    groups = parameter_groups(model, config)
    if isinstance(config, AdamWConfig):
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
