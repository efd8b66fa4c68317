"""A network of linear layers, for spike trains and small images."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from gradspike.data.options.base import DatasetConfig
from gradspike.models.blocks import conv1x1, fold_time, unfold_time
from gradspike.models.dropout import step_dropout
from gradspike.models.options import ModelConfig
from gradspike.spiking_norm import LayerContext


class SpikingMlpConfig(ModelConfig):
    """Linear layers of `hidden` units, each with a norm and a neuron behind it."""

    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=100)] = (256, 256)
    """Units of each hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Rate of dropout behind each hidden layer, the same mask at all time steps; 0: off."""


class SpikingMlp(nn.Module):
    """[linear - norm - neuron - dropout] for each hidden layer, and a linear layer that does not fire.

    The linear layers are 1x1 convolutions over one pixel, like those of transformers here.
    """

    Config: ClassVar[type[SpikingMlpConfig]] = SpikingMlpConfig

    def __init__(self, config: SpikingMlpConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        widths = [dataset.channels * dataset.image_size**2, *config.hidden]
        self.linear = nn.ModuleList(conv1x1(a, b) for a, b in pairwise(widths))
        self.neurons = nn.ModuleList(context.layer(width) for width in widths[1:])
        self.dropout = step_dropout(config.dropout, context.time_steps)
        self.head = nn.Linear(widths[-1], dataset.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        x = x.flatten(1)[:, :, None, None]
        for place, (linear, neuron) in enumerate(zip(self.linear, self.neurons, strict=True)):
            x = self.dropout(neuron(linear(x), static=static and place == 0))
        return unfold_time(self.head(x.flatten(1)), self.time_steps)
