"""The engine of a run with `engine=auto`: short work on a CPU ends sooner without compiled kernels."""

from __future__ import annotations

import torch
from torch import nn

from gradspike.config.schema import ExperimentConfig
from gradspike.engine.registry import choose_engine
from gradspike.models.spiking_layers import layer_shapes
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.build import input_shape
from gradspike.training.device import device_type

SECONDS_TO_COMPILE = 20.0
"""A network's kernels, forward and backward, on two cores of an AMD EPYC: 20 s for `spiking_cnn`."""
SECONDS_SAVED = 3e-9
"""Of a training step, for each neuron and time step, by compiled kernels. On the same cores: 5e-9 for `spiking_cnn` on
digits, 2e-9 for ResNet-19 at a quarter of its width.
"""


def first_engine(config: ExperimentConfig) -> str | None:
    """The engine to build a network with before its data are known; None for that of the configuration."""
    return "eager" if _open(config) else None


def settle_engine(model: nn.Module, config: ExperimentConfig, samples: int) -> str | None:
    """Where `first_engine` chose, use compiled kernels if training is long enough for them. Returns why not.

    Depends on the configuration and the number of training samples alone, so a resumed run, and an evaluation, compute
    as the run did. Raises UserError as `choose_engine` does.
    """
    if config.model.feeds_back and config.engine == "auto" and config.model.activation != "relu":
        return "engine: eager; feedback has no compiled kernels, because each step needs the spikes of the step before"
    if not _open(config):
        return None
    layers = [one for one in model.modules() if isinstance(one, SpikingNorm)]
    shapes = layer_shapes(layers, model, torch.zeros(input_shape(config, batch=1)))
    neurons = sum(torch.Size(shape[1:]).numel() for shape in shapes.values())
    saved = neurons * config.time_steps * samples * config.trainer.max_epochs * SECONDS_SAVED
    if saved > SECONDS_TO_COMPILE:
        engine = choose_engine(config.engine, "cpu")
        for layer in layers:
            layer.use_engine(engine)
        return None
    gain = f"{saved:.0f} s" if saved >= 1 else "less than 1 s"
    return (
        f"engine: eager; compiled kernels save {gain} of this run and take about {SECONDS_TO_COMPILE:.0f} s to compile"
    )


def _open(config: ExperimentConfig) -> bool:
    automatic = config.engine == "auto" and config.model.activation != "relu" and not config.trainer.compile
    return automatic and device_type(config.trainer.accelerator) == "cpu"
