"""What the layers of a network ask of its optimiser: no weight decay, another learning rate, or an Adam."""

from __future__ import annotations

from torch import nn

from gradspike.methods.base import Method
from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import ActivationLayer, SpikingNorm


def lr_multipliers(model: nn.Module) -> dict[str, float]:
    """Learning-rate factors set by methods, by full parameter name; 1 for parameters not listed."""
    return {
        f"{prefix}.{name}" if prefix else name: factor
        for prefix, module in model.named_modules()
        if isinstance(module, Method)
        for name, factor in module.lr_multipliers().items()
    }


def adam_rates(model: nn.Module) -> dict[str, float]:
    """Rates of the parameters that an Adam trains for methods that ask for it (`Method.adam_lr`), by full name."""
    return {
        f"{prefix}.{part}.{name}" if prefix else f"{part}.{name}": layer.method.adam_lr
        for prefix, layer in model.named_modules()
        if isinstance(layer, SpikingNorm) and layer.method.adam_lr is not None
        for part in ("neuron", "method")
        for name, _ in layer.get_submodule(part).named_parameters()
    }


NORMALISING = (ActivationLayer, ChannelNorm, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
"""Kinds of layers that normalise or fire, of ours and of torch's."""


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Full names of all parameters of norms, neurons and methods, which usually have no weight decay.

    The weights of a layer's feedback have it, like those of other linear layers.
    """
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, NORMALISING)
        for name, _ in module.named_parameters()
        if not (isinstance(module, ActivationLayer) and name.startswith("feedback."))
    }
