"""Residual blocks of spiking layers, and stages of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from gradspike.models.blocks import conv1x1, conv3x3
from gradspike.models.options import ResidualConfig
from gradspike.packed_spikes import largest_of, mark
from gradspike.spiking_norm import LayerContext

BlockMaker = Callable[[int, int, int, str, LayerContext], nn.Module]
"""Makes a block from channels of its input, its channels, stride, the option `residual` and the context."""


def combined(residual: str, spikes: Tensor, shortcut: Tensor) -> Tensor:
    """add: s + x, and: s * x, iand: (1 - s) * x, for spikes s and shortcut x."""
    a, b = largest_of(spikes), largest_of(shortcut)
    if residual == "add":
        total = spikes + shortcut
        return total if a is None or b is None else mark(total, a + b)
    product = spikes * shortcut
    if residual == "and":
        return product if a is None or b is None else mark(product, a * b)
    kept = shortcut - product
    return kept if a != 1 or b is None else mark(kept, b)


class SewBlock(nn.Module):
    """conv3x3 - norm - neuron, twice, combined with the shortcut after the last neuron (SEW; Fang et al., NeurIPS
    2021).

    See `combined`. Sums are counts, above 1 after several blocks. The shortcut is the input; conv1x1 - norm - neuron of
    it if the shape changes.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, residual: str, context: LayerContext) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.neuron1 = context.layer(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        # A product is 1 only if both factors are. Unless most neurons of a block fire initially, no spike reaches the
        # end of a deep stage. (Fang et al. start with a gain of zero and a block that always fires.)
        self.neuron2 = context.layer(channels_out, bias=2.0 if residual == "and" else 0.0)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(conv1x1(channels_in, channels_out, stride), context.layer(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C_in, H, W] -> [T*B, C_out, H', W']."""
        spikes: Tensor = self.neuron2(self.conv2(self.neuron1(self.conv1(x))))
        return combined(self.residual, spikes, self.shortcut(x))


class BasicBlock(nn.Module):
    """conv3x3 - norm - neuron - conv3x3 - norm, the shortcut added, then the neuron (Zheng et al., AAAI 2021).

    The shortcut is the input; conv1x1 - norm of it if the shape changes. The last neuron's current is a sum of two
    norms, or of a norm and spikes. No gain is that neuron's own, so its method sees gamma_mean = 1, as without a norm
    (our interpretation; the papers of the methods use SEW blocks).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, context: LayerContext) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.neuron1 = context.layer(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.norm2 = context.channel_norm(channels_out, branches=2)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            norm = context.channel_norm(channels_out, branches=2)
            self.shortcut = nn.Sequential(conv1x1(channels_in, channels_out, stride), norm)
        self.neuron2 = context.neuron_layer(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C_in, H, W] -> [T*B, C_out, H', W']."""
        current = self.norm2(self.conv2(self.neuron1(self.conv1(x))))
        spikes: Tensor = self.neuron2(current + self.shortcut(x))
        return spikes


def residual_block(
    channels_in: int, channels: int, stride: int, residual: str, context: LayerContext
) -> SewBlock | BasicBlock:
    """The block of two 3x3 convolutions for an option `residual`."""
    if residual == "basic":
        return BasicBlock(channels_in, channels, stride, context)
    return SewBlock(channels_in, channels, stride, residual, context)


def residual_stages(
    config: ResidualConfig,
    channels_in: int,
    widths: Sequence[int],
    depths: Sequence[int],
    context: LayerContext,
    block: BlockMaker = residual_block,
    expansion: int = 1,
) -> nn.Sequential:
    """Stages of `depths[i]` blocks with `widths[i]` channels, at their end `expansion` times as many. Each stage but
    the first starts with stride 2.
    """
    blocks = nn.Sequential()
    for stage, (channels, depth) in enumerate(zip(widths, depths, strict=True)):
        for index in range(depth):
            stride = 2 if stage and not index else 1
            blocks.append(block(channels_in, channels, stride, config.residual, context))
            channels_in = channels * expansion
    return blocks
