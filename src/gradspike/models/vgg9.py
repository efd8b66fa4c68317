"""VGG-9 of TEBN and TAB (Duan et al., NeurIPS 2022; Jiang et al., ICLR 2024), whose classes have several voters."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from typing_extensions import override

from gradspike.models.blocks import scaled
from gradspike.models.vgg import Vgg, VggConfig


class Vgg9Config(VggConfig):
    """hidden: units of the first linear layer, times `width`. voters: outputs of the last one for each class, whose
    mean is the logit. dropout: before each linear layer (0.25 in the released code).
    """

    halvings = 3

    bias: bool = True
    hidden: PositiveInt = 1024
    voters: PositiveInt = 10


class VotingHead(nn.Linear):
    """A linear layer with `voters` outputs for each class; gives their mean, [N, classes]."""

    def __init__(self, features: int, classes: int, voters: int) -> None:
        super().__init__(features, classes * voters)
        self.voters = voters

    @override
    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(super().forward(x), 1, (-1, self.voters)).mean(2)


class Vgg9(Vgg):
    """7 convolutions in three stages and two linear layers, with no neuron between these."""

    Config: ClassVar[type[VggConfig]] = Vgg9Config
    stages = ((64, 64), (128, 128), (256, 256, 256))

    @override
    def add_classifier(self, config: VggConfig, features: int, classes: int) -> None:
        assert isinstance(config, Vgg9Config)
        hidden = scaled(config.hidden, config.width)
        self.hidden = nn.Linear(features, hidden)
        self.head = VotingHead(hidden, classes, config.voters)

    @override
    def drop_spikes(self, spikes: Tensor) -> Tensor:
        return spikes

    @override
    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.hidden(self.dropout(features))))
        return logits
