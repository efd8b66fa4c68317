"""MS-ResNet-18, -34 and -104 (Hu et al., "Advancing spiking neural networks towards deep residual learning", TNNLS
2024): the residual stream is a current, and each convolution has its neuron before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from gradspike.data.options.base import DatasetConfig
from gradspike.models.blocks import conv1x1, conv3x3, fold_time, initialise, normed_stem, scaled, unfold_time
from gradspike.models.dropout import step_dropout
from gradspike.models.options import LARGE, Depths, ModelConfig
from gradspike.spiking_norm import LayerContext

CHANNELS = (64, 128, 256, 512)


class MsResNetConfig(ModelConfig):
    """MS-ResNet. `width`: factor for all channels.

    depths: blocks of the four stages; null for the network's own. stem: imagenet (stride 2, and stride 2 in the first
    stage too) or small (3x3, both at full size); auto: small below 96 pixels. zero_gain: the last gain of each block
    starts at 0. dropout: rate before the linear layer.
    """

    needs_space: ClassVar[bool] = True

    width: PositiveFloat = 1.0
    depths: Depths | None = None
    stem: Literal["auto", "imagenet", "small"] = "auto"
    zero_gain: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class MsResNet104Config(MsResNetConfig):
    """The deeper network, with dropout by default."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


class MsBlock(nn.Module):
    """neuron - conv3x3 - norm - neuron - conv3x3 - norm, and the shortcut added; input and output are currents.

    The shortcut is the input; conv1x1 - norm of it if the shape changes, of means over 2x2 pixels if `pooled` and the
    stride is 2.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, context: LayerContext, pooled: bool = False
    ) -> None:
        super().__init__()
        self.neuron1 = context.neuron_layer(channels_in)
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.neuron2 = context.layer(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.norm2 = context.channel_norm(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            if pooled and stride > 1:
                # An odd last row or column is a mean of what is there: the convolution keeps it too.
                self.shortcut.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
            self.shortcut.append(conv1x1(channels_in, channels_out, 1 if pooled else stride))
            self.shortcut.append(context.channel_norm(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Currents [T*B, C_in, H, W] -> [T*B, C_out, H', W']."""
        current: Tensor = self.norm2(self.conv2(self.neuron2(self.conv1(self.neuron1(x)))))
        shortcut: Tensor = self.shortcut(x)
        return current + shortcut


class MsResNet(nn.Module):
    """Stem, four stages of blocks, neuron, global average pooling, one linear layer.

    The stem is conv7x7 with stride 2 - norm (imagenet) or conv3x3 - norm (small), without a neuron.
    """

    Config: ClassVar[type[MsResNetConfig]] = MsResNetConfig
    depths: ClassVar[tuple[int, ...]]
    """Number of blocks in each stage."""
    pooled_shortcuts: ClassVar[bool] = False

    def __init__(self, config: MsResNetConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        widths = [scaled(channels, config.width) for channels in CHANNELS]
        large = config.stem == "imagenet" or (config.stem == "auto" and dataset.image_size >= LARGE)
        self.stem = self.stem_of(dataset.channels, widths[0], large)
        self.stem_norm = context.channel_norm(widths[0])
        self.blocks = self._stages(widths, config.depths or self.depths, 2 if large else 1, context)
        self.neuron = context.neuron_layer(widths[-1])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = step_dropout(config.dropout, context.time_steps)
        self.head = nn.Linear(widths[-1], dataset.classes)
        initialise(self)
        if config.zero_gain:
            for block in self.blocks:
                assert isinstance(block, MsBlock)
                nn.init.zeros_(block.norm2.weight)

    def stem_of(self, channels_in: int, channels_out: int, large: bool) -> nn.Module:
        """The convolutions before the first norm."""
        if large:
            return nn.Conv2d(channels_in, channels_out, 7, stride=2, padding=3, bias=False)
        return conv3x3(channels_in, channels_out)

    def _stages(self, widths: Sequence[int], depths: Sequence[int], first: int, context: LayerContext) -> nn.Sequential:
        blocks, channels_in = nn.Sequential(), widths[0]
        for stage, (channels, depth) in enumerate(zip(widths, depths, strict=True)):
            for index in range(depth):
                stride = 1 if index else 2 if stage else first
                blocks.append(MsBlock(channels_in, channels, stride, context, self.pooled_shortcuts))
                channels_in = channels
        return blocks

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        x = normed_stem(self.stem_norm, self.stem(x), static, self.time_steps)
        spikes = self.neuron(self.blocks(x))
        return unfold_time(self.head(self.dropout(self.pool(spikes).flatten(1))), self.time_steps)


class MsResNet18(MsResNet):
    """18 layers with weights on the longest path."""

    depths = (2, 2, 2, 2)


class MsResNet34(MsResNet):
    """34 layers with weights on the longest path."""

    depths = (3, 4, 6, 3)


class MsResNet104(MsResNet):
    """104 layers with weights on the longest path; shortcuts pool, and the imagenet stem is three 3x3 convolutions
    with bias, the first with stride 2.
    """

    Config: ClassVar[type[MsResNetConfig]] = MsResNet104Config
    depths = (3, 8, 32, 8)
    pooled_shortcuts = True

    def stem_of(self, channels_in: int, channels_out: int, large: bool) -> nn.Module:
        """See the class."""
        if not large:
            return super().stem_of(channels_in, channels_out, large)
        return nn.Sequential(
            conv3x3(channels_in, channels_out, 2, bias=True),
            conv3x3(channels_out, channels_out, bias=True),
            conv3x3(channels_out, channels_out, bias=True),
        )
