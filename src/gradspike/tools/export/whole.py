"""A whole network in evaluation as one module of plain torch operations, from stored samples to logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.engine import stepwise
from gradspike.engine.base import EngineOptions, EngineOutput, normalised
from gradspike.errors import ConfigError
from gradspike.library.load import TrainedModel
from gradspike.methods.base import LayerFacts, Method
from gradspike.models.encoder import encoder_of
from gradspike.neurons.base import Neuron
from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import SpikingNorm


class WholeNetwork(nn.Module):
    """Input transform and network. The layers run the formulas of the reference engine without autograd functions.

    Raises ConfigError for an encoder with random numbers, which other programs draw differently.
    """

    def __init__(self, net: TrainedModel) -> None:
        super().__init__()
        self.net = net
        for module in net.modules():
            if encoder_of(module) == "poisson":
                raise ConfigError(
                    "model.encoder=poisson: draws random numbers, and other programs draw different ones. Export a "
                    "network with model.encoder=direct or latency."
                )
            if isinstance(module, SpikingNorm):
                module.use_engine(run_plainly)

    @override
    def forward(self, samples: Tensor) -> Tensor:
        """Logits [T, B, K] of stored samples: images uint8 [B, C, H, W], or counts int16 [B, T, 2, H, W]."""
        logits: Tensor = self.net(self.net.transform(samples))
        return logits


def run_plainly(
    x: Tensor,
    neuron: Neuron,
    method: Method,
    facts: LayerFacts,
    options: EngineOptions,
    norm: ChannelNorm | None = None,
) -> EngineOutput:
    """The loop over steps that the reference engine uses for any neuron; see `gradspike.engine.base.Engine`."""
    if norm is not None:
        x = normalised(x, norm, facts)
    if len(x) < facts.time_steps:
        x = x.expand(facts.time_steps, *x.shape[1:])
    return stepwise.run(x, neuron, method, facts, options)


def sample_inputs(net: TrainedModel, batch: int) -> Tensor:
    """Stored samples of the network's shape, with values from 0 to 3 that recur."""
    data, steps = net.config.dataset, net.config.time_steps
    shape: tuple[int, ...] = (batch, data.channels, data.image_size, data.image_size)
    if data.kind == "frames":
        shape = (batch, steps, *shape[1:])
    kind = torch.int16 if data.kind == "frames" else torch.uint8
    return (torch.arange(torch.Size(shape).numel()) % 4).view(shape).to(kind)
