"""ResNet-19, the network of the CIFAR recipes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from gradspike.data.options.base import DatasetConfig
from gradspike.models.blocks import conv3x3, fold_time, initialise, scaled, unfold_time
from gradspike.models.options import ResidualConfig
from gradspike.models.pooling import AdaptiveMaxPool2d
from gradspike.models.residual import residual_stages
from gradspike.spiking_norm import LayerContext

CHANNELS = (128, 256, 512)
DEPTHS = (3, 3, 2)
HIDDEN = 256


class ResNet19(nn.Module):
    """3x3 stem, 8 residual blocks, global pooling, linear - norm - neuron, linear (Zheng et al., AAAI 2021).

    By default the blocks are SEW blocks, as in the released code of MPD-AGL (Jiang et al., IJCAI 2025).
    """

    Config: ClassVar[type[ResidualConfig]] = ResidualConfig

    def __init__(self, config: ResidualConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        widths = [scaled(channels, config.width) for channels in CHANNELS]
        hidden = scaled(HIDDEN, config.width)
        self.stem = conv3x3(dataset.channels, widths[0])
        self.stem_neuron = context.layer(widths[0])
        self.blocks = residual_stages(config, widths[0], widths, DEPTHS, context)
        self.pool = nn.AdaptiveAvgPool2d(1) if config.pool == "avg" else AdaptiveMaxPool2d(1)
        self.hidden = nn.Linear(widths[-1], hidden, bias=False)
        self.hidden_neuron = context.layer(hidden)
        self.head = nn.Linear(hidden, dataset.classes, bias=False)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        x = self.blocks(self.stem_neuron(self.stem(x), static=static))
        x = self.hidden_neuron(self.hidden(self.pool(x).flatten(1)))
        return unfold_time(self.head(x), self.time_steps)
