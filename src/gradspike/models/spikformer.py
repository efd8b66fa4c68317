"""Spikformer (Zhou et al., "Spikformer: when spiking neural network meets transformer", ICLR 2023)."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from pydantic import PositiveFloat
from torch import Tensor, nn

from gradspike.data.options.base import DatasetConfig
from gradspike.models.attention import SelfAttention
from gradspike.models.blocks import conv3x3, fold_time, initialise_tokens, unfold_time
from gradspike.models.feed_forward import FeedForward
from gradspike.models.options import STEM_PARTS, TransformerConfig
from gradspike.models.pooling import MaxPool2d
from gradspike.spiking_norm import LayerContext


class SpikformerConfig(TransformerConfig):
    """Spikformer. qkv_bias: biases of the convolutions of q, k and v; null: as released, for still images below 96
    pixels. scale: factor of q k^T v, whatever the size of a head is; null: as released, 0.25 for events, else 0.125.
    """

    qkv_bias: bool | None = None
    scale: PositiveFloat | None = None


class PatchSplitting(nn.Module):
    """Four times conv3x3 - norm - neuron, the last `pools` with max pooling; then x + neuron(norm(conv3x3 x)), whose
    convolution stands in for a position embedding.
    """

    def __init__(self, channels_in: int, channels: int, pools: int, context: LayerContext) -> None:
        super().__init__()
        widths = [channels_in, *(channels // part for part in STEM_PARTS)]
        self.convs = nn.ModuleList(conv3x3(a, b) for a, b in pairwise(widths))
        self.neurons = nn.ModuleList(context.layer(width) for width in widths[1:])
        first = len(STEM_PARTS) - pools
        self.pools = nn.ModuleList(
            MaxPool2d(3, 2, padding=1) if index >= first else nn.Identity() for index in range(len(STEM_PARTS))
        )
        self.position = conv3x3(channels, channels)
        self.position_neuron = context.layer(channels)

    def forward(self, x: Tensor, static: bool = False) -> Tensor:
        """[T*B, C_in, H, W], or [B, C_in, H, W] if `static`, -> [T*B, C, H', W'], counts up to 2."""
        for conv, neuron, pool in zip(self.convs, self.neurons, self.pools, strict=True):
            x = pool(neuron(conv(x), static=static))
            static = False
        spikes: Tensor = self.position_neuron(self.position(x))
        return x + spikes


class SpikformerBlock(nn.Module):
    """x + attention(x), then x + feed_forward(x): the stream holds counts of spikes."""

    def __init__(self, channels: int, heads: int, hidden: int, bias: bool, scale: float, context: LayerContext) -> None:
        super().__init__()
        self.attention = SelfAttention(channels, heads, bias, scale, context)
        self.feed_forward = FeedForward(channels, hidden, context)

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C, H, W] -> [T*B, C, H, W]."""
        x = x + self.attention(x)
        spikes: Tensor = self.feed_forward(x)
        return x + spikes


class Spikformer(nn.Module):
    """Patch splitting, blocks, the mean over all tokens, one linear layer."""

    Config: ClassVar[type[SpikformerConfig]] = SpikformerConfig

    def __init__(self, config: SpikformerConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        small = config.is_small(dataset.kind, dataset.image_size)
        bias = small if config.qkv_bias is None else config.qkv_bias
        scale = config.scale or (0.25 if dataset.kind == "frames" else 0.125)
        pools = config.poolings(dataset.kind, dataset.image_size)
        self.patches = PatchSplitting(dataset.channels, config.dim, pools, context)
        hidden = round(config.dim * config.mlp_ratio)
        self.blocks = nn.Sequential(
            *(SpikformerBlock(config.dim, config.heads, hidden, bias, scale, context) for _ in range(config.depth))
        )
        self.head = nn.Linear(config.dim, dataset.classes)
        initialise_tokens(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        x = self.blocks(self.patches(x, static))
        return unfold_time(self.head(x.mean((2, 3))), self.time_steps)
