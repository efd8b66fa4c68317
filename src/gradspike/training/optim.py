"""The optimiser and its parameter groups."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from gradspike.config.schema import GroupConfig, OptimizerConfig, SchedulerConfig
from gradspike.errors import ConfigError, did_you_mean
from gradspike.models.parameters import adam_rates, lr_multipliers, undecayed_parameters
from gradspike.training.with_adam import WithAdam


def parameter_groups(
    model: nn.Module, config: OptimizerConfig, layers: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Group parameters by weight decay and learning rate.

    Norm gains and biases, neuron decay and surrogate width have no weight decay unless `decay_all`: a gain near 0
    silences its layer, and a width near 0 divides by zero. A method may multiply the rate, or have an Adam train the
    parameters of its layer: such a group has the key `adam`, its own rate and no weight decay. The last pattern in
    `config.groups` that matches a parameter's name applies: it multiplies the rate too, and replaces the weight decay.
    layers: the layer of every parameter, which `layer_decay` below 1 needs; it leaves the rate of an Adam as it is.

    Raises ConfigError for a pattern that matches no parameter; suggests the closest one.
    """
    undecayed = set() if config.decay_all else undecayed_parameters(model)
    multipliers, own = lr_multipliers(model), adam_rates(model)
    depth = _rates_by_layer(config.layer_decay, layers)
    special = _special(config.groups, [name for name, _ in model.named_parameters()])
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        options = special.get(name, GroupConfig())
        decay = 0.0 if name in undecayed or name in own else config.weight_decay
        key = (
            decay if options.weight_decay is None else options.weight_decay,
            (own[name] if name in own else config.lr * multipliers.get(name, 1.0) * depth(name)) * options.lr,
            name in own,
        )
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr": lr, **({"adam": True} if adam else {})}
        for (decay, lr, adam), parameters in groups.items()
    ]


def _rates_by_layer(decay: float, layers: Mapping[str, int] | None) -> Callable[[str], float]:
    """The factor of a parameter's rate, by its name: 1 for the last layer, times `decay` for each one before it."""
    if decay == 1:
        return lambda name: 1.0
    if layers is None:
        raise ValueError("layer_decay needs the layers of the network (training/layers.py)")
    last = max(layers.values())
    return lambda name: decay ** (last - layers[name])


def build_optimizer(
    config: OptimizerConfig,
    model: nn.Module,
    gradient_clip: float | None = None,
    layers: Mapping[str, int] | None = None,
) -> torch.optim.Optimizer:
    """Build the optimiser over the groups of `parameter_groups`; torch's own are fused: one kernel for all parameters.

    Lightning cannot clip the gradients of a fused optimiser, so with `gradient_clip` torch chooses the kernels.
    """
    groups = parameter_groups(model, config, layers)
    fused = True if gradient_clip is None else None
    arguments = config.arguments()
    kernels = {"fused": fused} if config.module == "torch.optim" else {}
    kind = getattr(importlib.import_module(config.module), config.class_name)
    optimizer: torch.optim.Optimizer = kind(
        [group for group in groups if "adam" not in group], lr=config.lr, **arguments, **kernels
    )
    if fused and arguments.get("momentum"):
        # The fused kernel needs momentum for all parameters of a group or for none, but some get their first gradient
        # later than others. A momentum of 0 gives the same first step.
        for parameter in (one for group in optimizer.param_groups for one in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    own = [group for group in groups if "adam" in group]
    return WithAdam(optimizer, torch.optim.Adam(own, fused=fused)) if own else optimizer


def _special(groups: Mapping[str, GroupConfig], names: list[str]) -> dict[str, GroupConfig]:
    """The options of each parameter that a pattern matches."""
    special: dict[str, GroupConfig] = {}
    for pattern, options in groups.items():
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            known = list(_patterns(names))
            heads = [word for word in known if "." not in word.removesuffix(".*")]
            raise ConfigError(
                f"optimizer.groups: no parameter's name matches '{pattern}'.{did_you_mean(pattern, known)} "
                f"Parts of the network: {', '.join(heads)}"
            )
        special |= dict.fromkeys(matching, options)
    return special


def _patterns(names: Iterable[str]) -> Iterable[str]:
    """Each name, and `part.*` for each part of the network that has parameters, in order."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        found |= dict.fromkeys(".".join([*parts[:depth], "*"]) for depth in range(1, len(parts)))
        found[name] = None
    return found


def rate_of(group: dict[str, Any], schedule: SchedulerConfig, warmup: int, total: int) -> Callable[[int], float]:
    """The learning rate of a parameter group over time, as a fraction of its own; constant for Adam's groups."""
    if "adam" in group:
        return lambda now: 1.0
    return lambda now: rate_fraction(schedule, now, warmup, total)


def rate_fraction(schedule: SchedulerConfig, now: int, warmup: int, total: int) -> float:
    """The learning rate at step or epoch `now` of `total`, as a fraction of the optimiser's."""
    if now < warmup:
        return (now + 1) / (warmup + 1)
    if schedule.name == "constant":
        return 1.0
    progress = min((now - warmup) / max(total - warmup, 1), 1.0)
    return schedule.final_fraction + (1 - schedule.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))
