"""A network of recurrent linear layers, for spike trains."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from gradspike.models.spiking_mlp import SpikingMlp, SpikingMlpConfig
from gradspike.spiking_norm import LayerContext, NormReLU, SpikingNorm


class SpikingRnnConfig(SpikingMlpConfig):
    """Linear layers of `hidden` units, each with a norm, a neuron, and weights from its spikes to its next currents."""

    feeds_back: ClassVar[bool] = True


class SpikingRnn(SpikingMlp):
    """The network of `SpikingMlp` with feedback in each hidden layer: current[t] = norm(W x)[t] + V s[t-1]."""

    Config: ClassVar[type[SpikingMlpConfig]] = SpikingRnnConfig

    @override
    def hidden_layer(self, context: LayerContext, width: int) -> SpikingNorm | NormReLU:
        return context.layer(width, recurrent=True)
