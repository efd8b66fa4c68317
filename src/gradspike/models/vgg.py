"""VGG networks: VGGSNN of the CIFAR10-DVS recipes, VGG-11, VGG-13 of the Tiny-ImageNet recipe, and VGG-16."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from typing_extensions import override

from gradspike.data.options.base import DatasetConfig
from gradspike.models.blocks import conv3x3, fold_time, initialise, pool2x2, scaled, unfold_time
from gradspike.models.dropout import step_dropout
from gradspike.models.options import WidthConfig
from gradspike.models.pooling import AdaptiveAvgPool2d
from gradspike.spiking_norm import LayerContext


class VggConfig(WidthConfig):
    """VGG networks: stages of convolutions, each followed by 2x2 pooling.

    bias: of the convolutions. dropout: rate, with one mask for all time steps. grid: the linear layer sees means over
    a grid of so many rows and columns; null: every position. An image smaller than the grid is repeated.
    """

    halvings: ClassVar[int]
    """Number of poolings."""

    bias: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    grid: PositiveInt | None = None

    @override
    def check_image_size(self, image_size: int) -> None:
        if image_size >> self.halvings == 0:
            raise ValueError(
                f"{self.halvings} poolings leave less than a pixel of {image_size} x {image_size} images; the network "
                f"needs images of {1 << self.halvings} pixels or more (dataset.image_size, if the data set has it)"
            )


class VggSnnConfig(VggConfig):
    """VGGSNN (Deng et al., ICLR 2022)."""

    halvings = 4


class Vgg13Config(VggConfig):
    """VGG-13 (Simonyan & Zisserman, ICLR 2015) with one linear layer."""

    halvings = 5


class ReleasedVggConfig(VggConfig):
    """VGG-11 and VGG-16 as the released codes of SLTT (ICCV 2023) and CLIF (ICML 2024) have them."""

    halvings = 5

    bias: bool = True
    grid: PositiveInt | None = 7


class Vgg(nn.Module):
    """Stages of conv3x3 - norm - neuron - dropout, each followed by 2x2 pooling, and one linear layer."""

    stages: ClassVar[tuple[tuple[int, ...], ...]]
    """Channels of the convolutions in each stage."""

    def __init__(self, config: VggConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        widths = [scaled(channels, config.width) for stage in self.stages for channels in stage]
        ends = [sum(map(len, self.stages[: index + 1])) - 1 for index in range(len(self.stages))]
        self.convs = nn.ModuleList(conv3x3(a, b, bias=config.bias) for a, b in pairwise([dataset.channels, *widths]))
        self.neurons = nn.ModuleList(context.layer(width) for width in widths)
        self.pools = nn.ModuleList(pool2x2(config.pool) if i in ends else nn.Identity() for i in range(len(widths)))
        size = config.grid or dataset.image_size >> len(self.stages)
        self.grid = AdaptiveAvgPool2d(size) if config.grid else nn.Identity()
        self.dropout = step_dropout(config.dropout, context.time_steps)
        self.add_classifier(config, widths[-1] * size**2, dataset.classes)
        initialise(self)

    def add_classifier(self, config: VggConfig, features: int, classes: int) -> None:
        """Add the linear layer that `classify` uses."""
        self.head = nn.Linear(features, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        for conv, neuron, pool in zip(self.convs, self.neurons, self.pools, strict=True):
            x = pool(self.drop_spikes(neuron(conv(x), static=static)))
            static = False
        return unfold_time(self.classify(self.grid(x).flatten(1)), self.time_steps)

    def drop_spikes(self, spikes: Tensor) -> Tensor:
        """Dropout behind each neuron."""
        dropped: Tensor = self.dropout(spikes)
        return dropped

    def classify(self, features: Tensor) -> Tensor:
        """[T*B, features] -> [T*B, K]."""
        logits: Tensor = self.head(features)
        return logits


class VggSnn(Vgg):
    """VGGSNN (Deng et al., ICLR 2022): 8 convolutions, 9,268,754 parameters on CIFAR10-DVS with PLIF."""

    Config: ClassVar[type[VggConfig]] = VggSnnConfig
    stages = ((64, 128), (256, 256), (512, 512), (512, 512))


class Vgg13(Vgg):
    """The 10 convolutions of VGG-13 (Simonyan & Zisserman, ICLR 2015, configuration B) and one linear layer instead of
    three.
    """

    Config: ClassVar[type[VggConfig]] = Vgg13Config
    stages = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))


class Vgg11(Vgg):
    """The 8 convolutions of VGG-11 (Simonyan & Zisserman, ICLR 2015, configuration A) and one linear layer over a 7x7
    grid.
    """

    Config: ClassVar[type[VggConfig]] = ReleasedVggConfig
    stages = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class Vgg16(Vgg):
    """The 13 convolutions of VGG-16 (Simonyan & Zisserman, ICLR 2015, configuration D) and one linear layer over a 7x7
    grid.
    """

    Config: ClassVar[type[VggConfig]] = ReleasedVggConfig
    stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
