"""The feed-forward part of a block whose residual stream holds currents: a neuron stands before each convolution."""

from __future__ import annotations

from torch import Tensor, nn

from gradspike.models.blocks import biased_conv1x1
from gradspike.spiking_norm import LayerContext


class MembraneFeedForward(nn.Module):
    """y = norm(conv(neuron(x))) with `hidden` channels; out = x + norm(conv(neuron(y))).

    With as many hidden channels as x has, x is added to y, and y instead of x to the output, as in the released code.
    """

    def __init__(self, channels: int, hidden: int, context: LayerContext) -> None:
        super().__init__()
        self.neuron1 = context.neuron_layer(channels)
        self.conv1 = biased_conv1x1(channels, hidden)
        self.norm1 = context.channel_norm(hidden) if hidden == channels else None
        self.neuron2 = context.neuron_layer(hidden) if hidden == channels else context.layer(hidden)
        self.conv2 = biased_conv1x1(hidden, channels)
        self.norm2 = context.channel_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Currents [T*B, C, H, W] -> currents [T*B, C, H, W]."""
        y = self.conv1(self.neuron1(x))
        if self.norm1 is not None:
            x = y = x + self.norm1(y)
        current: Tensor = self.norm2(self.conv2(self.neuron2(y)))
        return x + current
