"""Builds the backbone and the data of a validated configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradspike.config.schema import ExperimentConfig
from gradspike.data.source import Split
from gradspike.engine.registry import choose_engine
from gradspike.errors import ConfigError, UserError
from gradspike.models.determinism import NOT_DETERMINISTIC, host_takes_part, nondeterministic_operations
from gradspike.models.encoder import encode_inputs
from gradspike.models.moderate_dropout import drop_features
from gradspike.models.output_neuron import add_output_neuron
from gradspike.models.registry import MODELS
from gradspike.models.spiking_layers import name_layers, set_spaces
from gradspike.spiking_norm import LayerContext
from gradspike.training.device import device_type

BATCH = 2
"""Samples of a trial step; a batch norm needs two."""

if TYPE_CHECKING:
    from gradspike.data.datamodule import DataModule

DIGITS = 12  # of a data set's digest that messages show


def report_of(model: nn.Module) -> tuple[str, ...]:
    """The lines of a converted backbone's report (`report.lines()`); none for other backbones."""
    lines = getattr(getattr(model, "report", None), "lines", None)
    return tuple(lines()) if callable(lines) else ()


def build_model(config: ExperimentConfig, engine: str | None = None) -> nn.Module:
    """Build the backbone for the data set's channels, image size and classes, and name its spiking layers.

    engine: of the layers; None for that of the configuration.
    """
    if config.model.activation == "relu" or config.model.feeds_back:
        engine = "eager"  # the ANN twin has no neurons to compute, and feedback has no kernels
    elif engine is None:
        engine = choose_engine(config.engine, device_type(config.trainer.accelerator))
    context = LayerContext(
        time_steps=config.time_steps,
        neuron=config.neuron,
        method=config.method,
        norm=config.norm,
        engine=engine,
        activation=config.model.activation,
    )
    model = MODELS.build(nn.Module, config.model, config.dataset, context)
    encode_inputs(model, config.model.encoder, config.time_steps)
    drop_features(model, config.model.moderate_dropout, config.time_steps)
    add_output_neuron(model, config.model.readout, config.time_steps)
    name_layers(model)
    set_spaces(model, torch.zeros(input_shape(config, batch=1)))
    return model


def input_shape(config: ExperimentConfig, batch: int) -> tuple[int, ...]:
    """The shape of a batch of the network's inputs."""
    data = config.dataset
    picture = (batch, data.channels, data.image_size, data.image_size)
    return picture if data.kind == "image" else (config.time_steps, *picture)


def check_deterministic(config: ExperimentConfig, model: nn.Module, device: str) -> None:
    """Raise ConfigError if torch would refuse a step of `model` on `device` under `trainer.deterministic`."""
    if device != "cuda" or not config.trainer.deterministic:
        return
    found = nondeterministic_operations(model, input_shape(config, BATCH))
    if found:
        names = ", ".join(f"{NOT_DETERMINISTIC[name]} ({name})" for name in found)
        raise ConfigError(
            f"model.name={config.model.name}: on CUDA, torch has no deterministic implementation of {names}. Use "
            "trainer.deterministic=false, after which two runs of one seed differ."
        )


def check_cuda_graphs(config: ExperimentConfig, model: nn.Module, device: str) -> None:
    """Raise ConfigError if `trainer.cuda_graphs` asks for graphs of steps of `model` that `device` cannot have."""
    if not config.trainer.cuda_graphs:
        return
    if device != "cuda":
        raise ConfigError(
            f"trainer.cuda_graphs=true: needs a CUDA device, but this training runs on {device}. Use "
            "trainer.cuda_graphs=false."
        )
    if host_takes_part(model, input_shape(config, BATCH)):
        raise ConfigError(
            f"trainer.cuda_graphs=true: in a training step of model.name={config.model.name} with method.name="
            f"{config.method.name}, the host reads a value of a tensor, or draws the seed of a dropout, of noise or of "
            "an encoder. A graph would repeat the same value in each step. Use trainer.cuda_graphs=false."
        )


def build_data(config: ExperimentConfig) -> DataModule:
    """Build the data module."""
    from gradspike.data.datamodule import DataModule  # Lightning takes seconds to import, and networks need none of it

    accumulate = config.trainer.accumulate
    return DataModule(config.dataset, config.time_steps, config.seed, Path(config.data_dir), accumulate)


def require_samples(data: DataModule, split: Split) -> None:
    """Raise UserError if `split` of the data, which must be set up, has no samples."""
    if not len(data.samples.indices(split)):
        reason = " With dataset.val_fraction=0 all samples are used for training." if split == "val" else ""
        raise UserError(f"The data set '{data.config.name}' has no samples in the split {split}.{reason}")


def require_data_of(checkpoint: Mapping[str, Any], data: DataModule) -> None:
    """Raise UserError unless the data, which must be set up, are those that a checkpoint was trained on."""
    trained_on, found = checkpoint.get("data"), data.digest
    if trained_on in (None, found):
        return
    config, source = data.config, getattr(data.config, "source", None)
    where = f"dataset.source={source}" if source is not None else f"data_dir={data.data_dir}"
    typed = "dataset.source or data_dir" if "source" in type(config).model_fields else "data_dir"
    raise UserError(
        f"dataset={config.name}: the run was trained on samples with the digest {trained_on[:DIGITS]}, but those of "
        f"{where} have {found[:DIGITS]}: files, splits or contents differ. Set {typed} to the run's data, or start a "
        "new run."
    )
