"""The Spike-driven Transformer (Yao et al., NeurIPS 2023): the residual stream holds currents."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn

from gradspike.data.options.base import DatasetConfig
from gradspike.models.blocks import conv3x3, fold_time, truncated_normal, unfold_time
from gradspike.models.membrane_feed_forward import MembraneFeedForward
from gradspike.models.options import STEM_PARTS, TransformerConfig
from gradspike.models.pooling import MaxPool2d
from gradspike.models.spike_driven_attention import SpikeDrivenAttention
from gradspike.spiking_norm import LayerContext


class SdtConfig(TransformerConfig):
    """The Spike-driven Transformer. attention_pooling: max pooling in attention; null: as released, for events."""

    dim: PositiveInt = 512
    depth: PositiveInt = 2
    heads: PositiveInt = 8
    attention_pooling: bool | None = None


class MembranePatches(nn.Module):
    """Three times conv3x3 - norm - neuron and once conv3x3 - norm, the last `pools` with max pooling, give the current
    f; then f + norm(conv3x3(neuron f)), whose convolution stands in for a position embedding.
    """

    def __init__(self, channels_in: int, channels: int, pools: int, context: LayerContext) -> None:
        super().__init__()
        widths = [channels_in, *(channels // part for part in STEM_PARTS)]
        self.convs = nn.ModuleList(conv3x3(a, b) for a, b in pairwise(widths))
        self.neurons = nn.ModuleList(context.layer(width) for width in widths[1:-1])
        self.norm = context.channel_norm(channels)
        first = len(STEM_PARTS) - pools
        self.pools = nn.ModuleList(
            MaxPool2d(3, 2, padding=1) if index >= first else nn.Identity() for index in range(len(STEM_PARTS))
        )
        self.neuron = context.neuron_layer(channels)
        self.position = conv3x3(channels, channels)
        self.position_norm = context.channel_norm(channels)

    def forward(self, x: Tensor, static: bool = False) -> Tensor:
        """[T*B, C_in, H, W], or [B, C_in, H, W] if `static`, -> currents [T*B, C, H', W']."""
        for conv, neuron, pool in zip(self.convs, self.neurons, self.pools, strict=False):
            x = pool(neuron(conv(x), static=static))
            static = False
        current: Tensor = self.pools[-1](self.norm(self.convs[-1](x)))
        position: Tensor = self.position_norm(self.position(self.neuron(current)))
        return position + current


class Sdt(nn.Module):
    """Patches, blocks of spike-driven attention and feed-forward part, mean over positions, neuron, linear layer."""

    Config: ClassVar[type[SdtConfig]] = SdtConfig

    def __init__(self, config: SdtConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        pooled = dataset.kind == "frames" if config.attention_pooling is None else config.attention_pooling
        pools = config.poolings(dataset.kind, dataset.image_size)
        self.patches = MembranePatches(dataset.channels, config.dim, pools, context)
        hidden = round(config.dim * config.mlp_ratio)
        self.blocks = nn.Sequential()
        for _ in range(config.depth):
            block = nn.Sequential()
            block.add_module("attention", SpikeDrivenAttention(config.dim, config.heads, pooled, context))
            block.add_module("feed_forward", MembraneFeedForward(config.dim, hidden, context))
            self.blocks.append(block)
        self.neuron = context.neuron_layer(config.dim)
        self.head = nn.Linear(config.dim, dataset.classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                truncated_normal(layer)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        x = self.blocks(self.patches(x, static))
        return unfold_time(self.head(self.neuron(x.mean((2, 3)))), self.time_steps)
