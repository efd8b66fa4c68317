"""The feed-forward part of a transformer's block: two 1x1 convolutions, each with a norm and a neuron behind it."""

from __future__ import annotations

from torch import Tensor, nn

from gradspike.models.blocks import biased_conv1x1
from gradspike.spiking_norm import LayerContext


class FeedForward(nn.Module):
    """conv1x1 - norm - neuron to `hidden` channels, and the same back."""

    def __init__(self, channels: int, hidden: int, context: LayerContext) -> None:
        super().__init__()
        self.conv1 = biased_conv1x1(channels, hidden)
        self.neuron1 = context.layer(hidden)
        self.conv2 = biased_conv1x1(hidden, channels)
        self.neuron2 = context.layer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C, H, W] -> spikes [T*B, C, H, W]."""
        spikes: Tensor = self.neuron2(self.conv2(self.neuron1(self.conv1(x))))
        return spikes
