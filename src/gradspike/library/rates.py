"""The firing rate of each spiking layer, over forward passes of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from gradspike.errors import ConfigError
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.firing_rate import FiringRate


@contextmanager
def firing_rates(model: nn.Module) -> Iterator[dict[str, float]]:
    """Measure the forward passes inside the block.

    with firing_rates(model) as rates:
        model(inputs)

    After the block, `rates` has the fraction of neurons that fire per time step, by the layer's name in `model`. It has
    a layer that was not called with 0.0. Raises ConfigError for a network without spiking layers.
    """
    if not any(isinstance(layer, SpikingNorm) for layer in model.modules()):
        raise ConfigError("The network has no spiking layers of gradspike, so it has no firing rates.")
    device = next((parameter.device for parameter in model.parameters()), None)
    counter = FiringRate(model).to(device)
    rates: dict[str, float] = {}
    counter.start()
    try:
        yield rates
    finally:
        counter.stop("")
        rates.update(counter.by_layer())
