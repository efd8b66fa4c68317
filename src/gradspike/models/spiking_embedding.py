"""Convolutions before a stage of QKFormer, with a shortcut of spikes (Zhou et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from gradspike.models.blocks import conv1x1, conv3x3
from gradspike.models.pooling import MaxPool2d
from gradspike.spiking_norm import LayerContext


class ConvLayer(nn.Module):
    """conv3x3 - norm - neuron, with max pooling between norm and neuron if `pooled`."""

    def __init__(self, channels_in: int, channels_out: int, pooled: bool, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        self.conv = conv3x3(channels_in, channels_out)
        self.norm = context.channel_norm(channels_out) if pooled else None
        self.pool = MaxPool2d(3, 2, padding=1)
        self.neuron = context.neuron_layer(channels_out) if pooled else context.layer(channels_out)

    def forward(self, x: Tensor, static: bool = False) -> Tensor:
        """[T*B, C_in, H, W], or [B, C_in, H, W] if `static`, -> spikes [T*B, C_out, H', W']."""
        current = self.conv(x)
        if self.norm is not None:
            current = self.pool(self.norm(current, repeats=self.time_steps if static else 1))
            static = static and not self.norm.per_step
        spikes: Tensor = self.neuron(current, static=static)
        return spikes


class SpikingEmbedding(nn.Module):
    """Layers in a row, and neuron(norm(conv1x1 x)) of what enters layer `split`, added to the spikes of the last one.

    steps: channels of each layer and whether it pools.
    """

    def __init__(self, channels_in: int, steps: Sequence[tuple[int, bool]], split: int, context: LayerContext) -> None:
        super().__init__()
        self.split = split
        self.layers = nn.ModuleList()
        branch = channels_in
        for index, (channels, pooled) in enumerate(steps):
            branch = channels_in if index == split else branch
            self.layers.append(ConvLayer(channels_in, channels, pooled, context))
            channels_in = channels
        stride = 2 ** sum(pooled for _, pooled in steps[split:])
        self.shortcut = conv1x1(branch, channels_in, stride)
        self.shortcut_neuron = context.layer(channels_in)

    def forward(self, x: Tensor, static: bool = False) -> Tensor:
        """[T*B, C_in, H, W], or [B, C_in, H, W] if `static` and `split` is not 0, -> counts [T*B, C_out, H', W']."""
        branch = x
        for index, layer in enumerate(self.layers):
            branch = x if index == self.split else branch
            x = layer(x, static)
            static = False
        spikes: Tensor = self.shortcut_neuron(self.shortcut(branch))
        return x + spikes
