"""The shapes, parameters, MACs and activation memory of a network, measured on the network itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradspike.config.schema import ExperimentConfig
from gradspike.cost.counting import OUTSIDE, count_flops, count_saved, layers_of
from gradspike.spiking_norm import ActivationLayer
from gradspike.training.build import build_model, report_of

BATCH = 2  # batch norm needs at least two samples in training; one sample costs the difference between two and three


@dataclass(frozen=True)
class Layer:
    """One row: for one sample and all time steps."""

    name: str
    kind: str
    steps: int
    """How often it is computed: 1 if its input is the same at every step, 0 if it has no single output."""
    output: tuple[int, ...]
    """The shape of one step's output for one sample."""
    parameters: int
    macs: int
    kept_bytes: int


@dataclass(frozen=True)
class Description:
    """The layers of a network in the order of computation."""

    layers: tuple[Layer, ...]
    report: tuple[str, ...] = ()
    """For a converted network, lines on what was converted and what is unchanged."""

    def totals(self) -> dict[str, int]:
        """Parameters, MACs and kept bytes of the whole network."""
        return {
            "parameters": sum(layer.parameters for layer in self.layers),
            "macs": sum(layer.macs for layer in self.layers),
            "kept_bytes": sum(layer.kept_bytes for layer in self.layers),
        }


def measure(config: ExperimentConfig) -> Description:
    """Build the network of a configuration on the CPU and measure it with random inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(config)
        if config.trainer.channels_last:
            model = model.to(memory_format=torch.channels_last)
        model.eval()
        with torch.no_grad():
            counted = count_flops(model, _inputs(config, 1))
        small, large = (
            count_saved(model, _inputs(config, batch), config.trainer.precision) for batch in (BATCH, BATCH + 1)
        )
    own = _own_parameters(model)
    layers = []
    for name, record in counted.records.items():
        kept = large.records[name].saved - small.records[name].saved if name in large.records else 0
        module = model.get_submodule(name) if name != OUTSIDE else model
        parameters = own.pop(name, 0)
        free = not (record.flops or kept or parameters)
        if free and (record.output is None or next(module.children(), None) is not None or not record.changed):
            continue  # a container, or a layer without effect
        steps, *shape = record.output or (0,)
        kind = _kind(module) if record.calls <= 1 else f"{_kind(module)}, {record.calls} times"
        layers.append(Layer(name, kind, steps, tuple(shape), parameters, record.flops // 2, kept))
    layers += [Layer(name, "not called", 0, (), count, 0, 0) for name, count in own.items() if count]
    return Description(tuple(layers), report_of(model))


def _inputs(config: ExperimentConfig, batch: int) -> Tensor:
    """Random images [B, C, H, W] or frames [T, B, C, H, W] of 0 to 1."""
    size = config.dataset.image_size
    shape: tuple[int, ...] = (batch, config.dataset.channels, size, size)
    if config.dataset.kind == "frames":
        return torch.rand(config.time_steps, *shape)
    inputs = torch.rand(shape)
    return inputs.contiguous(memory_format=torch.channels_last) if config.trainer.channels_last else inputs


def _own_parameters(model: nn.Module) -> dict[str, int]:
    """The number of parameters of each layer without its inner layers. Each parameter counts once."""
    seen: set[int] = set()
    counts: dict[str, int] = {}
    for name, module in [(OUTSIDE, model), *layers_of(model)]:
        whole = isinstance(module, ActivationLayer)
        parameters = [one for one in module.parameters(recurse=whole) if id(one) not in seen]
        seen.update(id(one) for one in parameters)
        counts[name] = sum(one.numel() for one in parameters)
    return counts


def _kind(module: nn.Module) -> str:
    """The class of a layer; for a convolution also its kernel and stride."""
    kind = type(module).__name__
    if not isinstance(module, nn.Conv2d):
        return kind
    kernel = "x".join(str(side) for side in module.kernel_size)
    stride = "" if set(module.stride) == {1} else f" /{module.stride[0]}"
    return f"{kind} {kernel}{stride}"
