"""Small networks of every backbone, for tests that build or train one without a run."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from gradspike.collected import collect_losses
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.methods.registry import METHODS
from gradspike.models.registry import MODELS
from gradspike.training.build import build_model
from gradspike.training.losses import TimeMeanCrossEntropy

SMALL = {
    "spiking_cnn": ["model.width=4", "model.depth=2", "dataset.image_size=8"],
    "spiking_mlp": ["model.hidden=[16,12]", "dataset.image_size=8"],
    "spiking_rnn": ["model.hidden=[16,12]", "dataset.image_size=8"],
    "resnet19": ["model.width=0.04", "dataset.image_size=8"],
    "sew_resnet18": ["model.width=0.07", "dataset.image_size=8"],
    "sew_resnet34": ["model.width=0.07", "dataset.image_size=8"],
    "sew_resnet50": ["model.width=0.07", "model.depths=[1,1,1,1]", "dataset.image_size=8"],
    "sew_resnet101": ["model.width=0.07", "model.depths=[1,1,1,1]", "dataset.image_size=8"],
    "sew_resnet152": ["model.width=0.07", "model.depths=[1,1,1,1]", "dataset.image_size=8"],
    "ms_resnet18": ["model.width=0.07", "dataset.image_size=8"],
    "ms_resnet34": ["model.width=0.07", "model.depths=[1,2,1,1]", "dataset.image_size=8"],
    "ms_resnet104": ["model.width=0.07", "model.depths=[1,1,2,1]", "model.dropout=0", "dataset.image_size=8"],
    "vgg9": ["model.width=0.07", "model.voters=2", "dataset.image_size=8"],
    "vgg11": ["model.width=0.07", "model.grid=2", "dataset.image_size=32"],
    "vgg16": ["model.width=0.12", "model.grid=2", "dataset.image_size=32"],
    "vggsnn": ["model.width=0.07", "dataset.image_size=16"],
    "vgg13": ["model.width=0.07", "dataset.image_size=32"],
    "spikformer": ["model.dim=32", "model.depth=1", "model.heads=2", "model.mlp_ratio=2", "dataset.image_size=8"],
    "sdt": ["model.dim=32", "model.depth=1", "model.heads=2", "model.mlp_ratio=2", "dataset.image_size=8"],
    "qkformer": ["model.dim=32", "model.depth=3", "model.heads=2", "model.mlp_ratio=1", "dataset.image_size=8"],
    "timm": ["model.name=test_resnet", "dataset.image_size=32"],
}

DEEPER = {"sew_resnet34", "sew_resnet101", "sew_resnet152", "ms_resnet34", "vgg16"}
"""Networks that run the code of a less deep one."""

PAIRS = [(name, method) for name in MODELS.names() for method in METHODS.names() if name not in DEEPER]
"""Every network with every method: a learned decay, which `plif` has, is the more general case."""

SOME_PAIRS = [(name, method) for number, (name, method) in enumerate(PAIRS) if number % 3 == 0]
"""A third of the pairs: of each network four or five methods, of each method four or five networks."""

KINDS = {"image": "cifar10", "frames": "cifar10dvs"}


@cache
def config_for(model: str, *more: str, kind: str = "image") -> ExperimentConfig:
    """On the reference engine: the compiled one would take minutes for the layers of every backbone."""
    data = [f"dataset={KINDS[kind]}", "time_steps=2", "recipe=none", "engine=eager"]
    return load_config([*data, f"model={model}", *SMALL.get(model, []), *more])


def changed(config: ExperimentConfig, section: str, **options: object) -> ExperimentConfig:
    """`config` with other options in one section, validated. Composing it again would take longer than a test."""
    part = getattr(config, section)
    return config.model_copy(update={section: type(part).model_validate({**part.model_dump(), **options})})


def build(config: ExperimentConfig, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config)


def train(model: nn.Module, inputs: Tensor, labels: Tensor, steps: int, lr: float = 0.02) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        with collect_losses() as extra:
            logits = model(inputs)
        (TimeMeanCrossEntropy()(logits, labels) + extra.mean()).backward()
        optimizer.step()
