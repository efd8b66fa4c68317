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
from gradspike.spiking_norm import LayerContext, NormReLU, SpikingNorm


class SpikingMlpConfig(ModelConfig):
    """Linear layers of `hidden` units, each with a norm and a neuron behind it."""

    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=100)] = (256, 256)
    """Units of each hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Rate of dropout behind each hidden layer, the same mask at all time steps; 0: off."""


class SpikingMlp(nn.Module):
    """[linear - norm - neuron - dropout] for each hidden layer, and a linear layer that does not fire.

    The linear layers are convolutions that give one pixel: the first over the whole input, the others 1x1.
    """

    Config: ClassVar[type[SpikingMlpConfig]] = SpikingMlpConfig

    def __init__(self, config: SpikingMlpConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        first = nn.Conv2d(dataset.channels, config.hidden[0], dataset.image_size, bias=False)
        self.linear = nn.ModuleList([first, *(conv1x1(a, b) for a, b in pairwise(config.hidden))])
        self.neurons = nn.ModuleList(self.hidden_layer(context, width) for width in config.hidden)
        self.dropout = step_dropout(config.dropout, context.time_steps)
        self.head = nn.Linear(config.hidden[-1], dataset.classes)

    def hidden_layer(self, context: LayerContext, width: int) -> SpikingNorm | NormReLU:
        """Norm and neuron of a hidden layer."""
        return context.layer(width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        for place, (linear, neuron) in enumerate(zip(self.linear, self.neurons, strict=True)):
            x = self.dropout(neuron(linear(x), static=static and place == 0))
        return unfold_time(self.head(x.flatten(1)), self.time_steps)
