"""A small convolutional network for the embedded data sets."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from typing_extensions import override

from gradspike.data.options.base import DatasetConfig
from gradspike.models.blocks import conv3x3, fold_time, initialise, pool2x2, unfold_time
from gradspike.models.options import ModelConfig
from gradspike.models.pooling import AdaptiveAvgPool2d
from gradspike.shown import counted
from gradspike.spiking_norm import LayerContext


class SpikingCnnConfig(ModelConfig):
    """`depth` stages of conv3x3 - norm - neuron; `width` channels in the first, doubled in each further one."""

    needs_space: ClassVar[bool] = True

    width: PositiveInt = 32
    depth: PositiveInt = 3
    pool: Literal["avg", "max"] = "avg"

    @override
    def check_image_size(self, image_size: int) -> None:
        deepest = image_size.bit_length()
        if self.depth > deepest:
            raise ValueError(
                f"model.depth={self.depth} halves {image_size} x {image_size} images "
                f"{counted(self.depth - 1, 'time')}, to less than a pixel; the maximum is model.depth={deepest}"
            )


class SpikingCnn(nn.Module):
    """`depth` stages of [pool - ] conv3x3 - norm - neuron with doubling channels, means over a 2x2 grid, and a linear
    layer.
    """

    Config: ClassVar[type[SpikingCnnConfig]] = SpikingCnnConfig

    def __init__(self, config: SpikingCnnConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        channels = [dataset.channels] + [config.width * 2**stage for stage in range(config.depth)]
        self.convs = nn.ModuleList(conv3x3(a, b) for a, b in pairwise(channels))
        self.neurons = nn.ModuleList(context.layer(width) for width in channels[1:])
        self.pool = pool2x2(config.pool)
        size = dataset.image_size >> (config.depth - 1)
        self.grid = AdaptiveAvgPool2d(min(size, 2))  # keeps coarse positions, which distinguish digits
        self.head = nn.Linear(channels[-1] * min(size, 2) ** 2, dataset.classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        for stage, (conv, neuron) in enumerate(zip(self.convs, self.neurons, strict=True)):
            if stage:
                x = self.pool(x)
            # The first current of a still image is the same at every step, so it is computed once and fed T times.
            x = neuron(conv(x), static=static and stage == 0)
        return unfold_time(self.head(self.grid(x).flatten(1)), self.time_steps)
