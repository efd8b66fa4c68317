"""The order of a network's layers, for learning rates that fall towards the input (`optimizer.layer_decay`)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.models.parameters import undecayed_parameters
from gradspike.training.build import build_model, input_shape


def layer_numbers(config: ExperimentConfig) -> dict[str, int]:
    """The layer of every parameter of the configuration's network, 0 for those that the input reaches first.

    A layer is a block: a direct part of the network, or a member of its lists. As for timm's networks, whose blocks
    are layers, all convolutions of a block share a rate. A norm or neuron alone belongs to the layer before it.

    Raises ConfigError for a timm network and for a parameter outside such parts or in one that does not run.
    """
    if getattr(config.model, "library", None) == "timm":
        raise ConfigError(
            f"optimizer.layer_decay={config.optimizer.layer_decay:g}: the order of the layers of timm networks is not "
            "known here. Set it to 1, or give parts of the network their rates with optimizer.groups."
        )
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, "eager").eval()
        parts = dict(_parts(model, ""))
        order = _order(model, parts, torch.zeros(input_shape(config, batch=1)))
    alone = undecayed_parameters(model)
    found: dict[str, int] = {}
    last = -1
    for part in order:
        names = [f"{part}.{name}" for name, _ in parts[part].named_parameters()]
        if names:
            last = max(last if alone.issuperset(names) else last + 1, 0)
            found |= dict.fromkeys(names, last)
    for name, _ in model.named_parameters():
        if name not in found:
            raise ConfigError(
                f"optimizer.layer_decay={config.optimizer.layer_decay:g}: no layer of model.name={config.model.name} "
                f"that runs holds the parameter '{name}'. Set it to 1, or use optimizer.groups."
            )
    return found


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The direct parts of a network and their names; of lists, their members."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from _parts(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _order(model: nn.Module, parts: dict[str, nn.Module], inputs: torch.Tensor) -> list[str]:
    """The names of the parts in the order in which they run first."""
    order: dict[str, None] = {}
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
    with torch.no_grad():
        model(inputs)
    return list(order)
