"""From a validated configuration to a backbone."""

from __future__ import annotations

import torch
from torch import nn

from gradspike.config.schema import ExperimentConfig
from gradspike.engine.registry import choose_engine
from gradspike.models.encoder import encode_inputs
from gradspike.models.registry import MODELS
from gradspike.spiking_norm import LayerContext, name_layers


def report_of(model: nn.Module) -> tuple[str, ...]:
    """What a backbone that was made from another network says of its making: `report.lines()`, where it has that."""
    lines = getattr(getattr(model, "report", None), "lines", None)
    return tuple(lines()) if callable(lines) else ()


def build_model(config: ExperimentConfig) -> nn.Module:
    """The backbone for the data set's channels, image size and classes, every spiking layer told its name for error
    messages.
    """
    device = "cpu"
    if config.trainer.accelerator != "cpu":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    # The ANN twin has no neurons to compute.
    engine = "eager" if config.model.activation == "relu" else choose_engine(config.engine, device)
    context = LayerContext(
        time_steps=config.time_steps,
        neuron=config.neuron,
        method=config.method,
        norm=config.norm,
        engine=engine,
        activation=config.model.activation,
    )
    model: nn.Module = MODELS.implementation(MODELS.part(dict(config.model)))(config.model, config.dataset, context)
    encode_inputs(model, config.model.encoder, config.time_steps)
    name_layers(model)
    return model
