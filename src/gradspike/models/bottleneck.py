"""Bottleneck blocks of spiking layers: conv1x1, conv3x3, conv1x1, the last with four times as many channels."""

from __future__ import annotations

from torch import Tensor, nn

from gradspike.models.blocks import conv1x1, conv3x3
from gradspike.models.residual import combined
from gradspike.spiking_norm import LayerContext

EXPANSION = 4
"""Channels at the end of a block for each channel of its 3x3 convolution."""


class SewBottleneck(nn.Module):
    """conv - norm - neuron, three times, combined with the shortcut as in `SewBlock` (Fang et al., NeurIPS 2021).

    The shortcut is the input; conv1x1 - norm - neuron of it if the shape changes.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, residual: str, context: LayerContext) -> None:
        super().__init__()
        self.residual = residual
        channels_out = EXPANSION * channels
        self.conv1 = conv1x1(channels_in, channels)
        self.neuron1 = context.layer(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.neuron2 = context.layer(channels)
        self.conv3 = conv1x1(channels, channels_out)
        self.neuron3 = context.layer(channels_out, bias=2.0 if residual == "and" else 0.0)  # see SewBlock
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(conv1x1(channels_in, channels_out, stride), context.layer(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C_in, H, W] -> [T*B, 4 C, H', W']."""
        spikes = self.neuron3(self.conv3(self.neuron2(self.conv2(self.neuron1(self.conv1(x))))))
        return combined(self.residual, spikes, self.shortcut(x))


class BasicBottleneck(nn.Module):
    """As `SewBottleneck`, but currents are added before the last neuron (He et al., CVPR 2016).

    The shortcut is the input; conv1x1 - norm of it if the shape changes. See `BasicBlock` for the last neuron.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, context: LayerContext) -> None:
        super().__init__()
        channels_out = EXPANSION * channels
        self.conv1 = conv1x1(channels_in, channels)
        self.neuron1 = context.layer(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.neuron2 = context.layer(channels)
        self.conv3 = conv1x1(channels, channels_out)
        self.norm3 = context.channel_norm(channels_out, branches=2)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            norm = context.channel_norm(channels_out, branches=2)
            self.shortcut = nn.Sequential(conv1x1(channels_in, channels_out, stride), norm)
        self.neuron3 = context.neuron_layer(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C_in, H, W] -> [T*B, 4 C, H', W']."""
        current = self.norm3(self.conv3(self.neuron2(self.conv2(self.neuron1(self.conv1(x))))))
        spikes: Tensor = self.neuron3(current + self.shortcut(x))
        return spikes


def bottleneck_block(
    channels_in: int, channels: int, stride: int, residual: str, context: LayerContext
) -> SewBottleneck | BasicBottleneck:
    """The block for an option `residual`."""
    if residual == "basic":
        return BasicBottleneck(channels_in, channels, stride, context)
    return SewBottleneck(channels_in, channels, stride, residual, context)
