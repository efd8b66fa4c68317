"""Small timm networks of every family that converts, and what their conversion counts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.data.options.base import DatasetConfig
from gradspike.models.spiking_layers import name_layers
from gradspike.models.timm.network import TimmConfig, TimmNetwork
from gradspike.spiking_norm import LayerContext
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config

T, B, SIZE = 2, 4, 32


FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18d": {"channels": [8, 8, 16, 16]},
    "vgg11_bn": {"mlp_ratio": 0.01},
    "test_efficientnet": {"act_layer": "relu6"},
    "densenet121": {"growth_rate": 8, "block_config": [2, 2, 2]},
    "test_byobnet": {},
    "test_convnext": {},
    "resnest14d": {"channels": [8, 8, 16, 16]},
}


@cache
def data(name: str) -> DatasetConfig:
    return load_config([f"dataset={name}", f"dataset.image_size={SIZE}", "recipe=none"]).dataset


def context_for(method: str = "mpd_agl", **norm: Any) -> LayerContext:
    return LayerContext(T, neuron_config(), method_config(method), norm_config(**norm))


def build(
    name: str, context: LayerContext | None = None, *, seed: int = 0, dataset: str = "cifar10", **model: Any
) -> TimmNetwork:
    config = TimmConfig.model_validate({"name": name, "options": FAMILIES.get(name, {}), "residual": "auto", **model})
    context = replace(context or context_for(), activation=config.activation)
    torch.manual_seed(seed)
    network = TimmNetwork(config, data(dataset), context)
    name_layers(network)
    return network


def original(name: str, seed: int = 0, channels: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=10, in_chans=channels, **FAMILIES.get(name, {}))


def images(batch: int = B, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
