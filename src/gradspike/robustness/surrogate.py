"""Another surrogate gradient for the attack than the one that the network was trained with.

A spiking network has no gradient of its own. Where its surrogate is narrow, most neurons pass nothing back and an
attack finds no direction: the gradient is masked, and the network only seems robust (Athalye et al., ICML 2018).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gradspike.errors import ConfigError
from gradspike.spiking_norm import SpikingNorm
from gradspike.surrogate import Surrogate, surrogate_of


def use_surrogate(model: nn.Module, name: str | None, width: float | None) -> None:
    """Let all spiking layers of a model pass gradients back through this surrogate. Their spikes stay the same.

    name: a shape; None for the layers' own. width: kappa of all layers; None for the widths of the method. Raises
    ConfigError if the neurons have a gradient of their own.
    """
    if name is None and width is None:
        return
    for layer in model.modules():
        if isinstance(layer, SpikingNorm):
            if layer.neuron.has_own_gradient:
                raise ConfigError(
                    f"{'surrogate' if name else 'width'}: the neurons of the run ({layer.neuron.config.name}) have a "
                    "gradient of their own, in place of a surrogate's."
                )
            own = layer.surrogate
            layer.surrogate = _for_attack(own, own if name is None else surrogate_of(name), width)


def _for_attack(own: Surrogate, shape: Surrogate, width: float | None) -> Surrogate:
    """`shape` as a function of the second argument that the method gives for `own`."""
    if width is None and (shape is own or own.width is None):
        return shape

    def kappa(given: Tensor) -> Tensor:
        if width is not None:
            return torch.full_like(given, width)
        return given if own.width is None else own.width(given)

    return replace(
        shape,
        derivative=lambda v, given: shape.derivative(v, kappa(given)),
        primitive=lambda v, given: shape.primitive(v, kappa(given)),
        width=kappa,
    )
