"""SEW-ResNet-18 to -152 (Fang et al., "Deep residual learning in spiking neural networks", NeurIPS 2021)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from gradspike.data.options.base import DatasetConfig
from gradspike.models.blocks import conv3x3, fold_time, initialise, scaled, unfold_time
from gradspike.models.bottleneck import EXPANSION, bottleneck_block
from gradspike.models.options import LARGE, Depths, ResidualConfig
from gradspike.models.pooling import MaxPool2d
from gradspike.models.residual import residual_block, residual_stages
from gradspike.spiking_norm import LayerContext

CHANNELS = (64, 128, 256, 512)


class SewResNetConfig(ResidualConfig):
    """ResNet-18 to -152.

    depths: blocks of the four stages; null for the network's own. stem: imagenet (7x7, stride 2, pooling) or small
    (3x3, stride 1); auto: small below 96 pixels. pool: pooling of the imagenet stem; the last pooling is always an
    average.
    """

    pool: Literal["avg", "max"] = "max"
    depths: Depths | None = None
    stem: Literal["auto", "imagenet", "small"] = "auto"


class SewResNet(nn.Module):
    """Stem, four stages of residual blocks, global average pooling, one linear layer.

    The stem is conv7x7 with stride 2 - norm - neuron - 3x3 pooling with stride 2 (imagenet), or conv3x3 - norm - neuron
    at full size (small).
    """

    Config: ClassVar[type[SewResNetConfig]] = SewResNetConfig
    depths: ClassVar[tuple[int, ...]]
    """Number of blocks in each stage."""
    bottleneck: ClassVar[bool] = False

    def __init__(self, config: SewResNetConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        widths = [scaled(channels, config.width) for channels in CHANNELS]
        if config.stem == "imagenet" or (config.stem == "auto" and dataset.image_size >= LARGE):
            self.stem = nn.Conv2d(dataset.channels, widths[0], 7, stride=2, padding=3, bias=False)
            self.stem_pool: nn.Module = (nn.AvgPool2d if config.pool == "avg" else MaxPool2d)(3, 2, padding=1)
        else:
            self.stem = conv3x3(dataset.channels, widths[0])
            self.stem_pool = nn.Identity()
        self.stem_neuron = context.layer(widths[0])
        block, expansion = (bottleneck_block, EXPANSION) if self.bottleneck else (residual_block, 1)
        depths = config.depths or self.depths
        self.blocks = residual_stages(config, widths[0], widths, depths, context, block, expansion)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1] * expansion, dataset.classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        x = self.blocks(self.stem_pool(self.stem_neuron(self.stem(x), static=static)))
        return unfold_time(self.head(self.pool(x).flatten(1)), self.time_steps)


class SewResNet18(SewResNet):
    """18 layers with weights on the longest path."""

    depths = (2, 2, 2, 2)


class SewResNet34(SewResNet):
    """34 layers with weights on the longest path."""

    depths = (3, 4, 6, 3)


class SewResNet50(SewResNet):
    """50 layers with weights on the longest path, in bottleneck blocks."""

    depths = (3, 4, 6, 3)
    bottleneck = True


class SewResNet101(SewResNet50):
    """101 layers with weights on the longest path, in bottleneck blocks."""

    depths = (3, 4, 23, 3)


class SewResNet152(SewResNet50):
    """152 layers with weights on the longest path, in bottleneck blocks."""

    depths = (3, 8, 36, 3)
