"""Two random directions in weight space, and the loss and accuracy of a network on the plane they span."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradspike.config.marks import touches
from gradspike.config.schema import ExperimentConfig, short_name
from gradspike.errors import UserError
from gradspike.json_text import to_json
from gradspike.models.parameters import undecayed_parameters
from gradspike.nested import flat
from gradspike.norms.base import ChannelNorm
from gradspike.runs.folder import RunFolder
from gradspike.tools.landscape.numbers import Point
from gradspike.touches import Touches
from gradspike.training.build import require_data_of
from gradspike.training.checkpoint import load_checkpoint, state_hash
from gradspike.training.evaluate import as_evaluated
from gradspike.training.finite import finite_samples
from gradspike.training.metrics import Meter
from gradspike.training.opened import open_split

if TYPE_CHECKING:
    from gradspike.tools.landscape.options import LandscapeConfig

Direction = dict[str, Tensor]
Forward = Callable[[Tensor], Tensor]
HELD_BYTES = 2**30  # inputs up to this size stay on the device; larger ones are read again for every point


def filter_normalised(noise: Tensor, weight: Tensor) -> Tensor:
    """`noise` with every filter (first dimension) rescaled to the norm of the same filter of `weight`.

    Both [filters, ...], at least two dimensions. Same shape, dtype of `noise` (Li et al., section 4).
    """
    lengths = noise.double().flatten(1).norm(dim=1)
    wanted = weight.double().flatten(1).norm(dim=1)
    scale = torch.where(lengths > 0, wanted / lengths, torch.zeros_like(wanted))
    return (noise.double() * scale.view(-1, *[1] * (noise.ndim - 1))).to(noise.dtype)


def random_direction(model: nn.Module, generator: torch.Generator) -> Direction:
    """A Gaussian direction in all weights of two or more dimensions, filter-normalised.

    All other parameters (norm gains and biases, biases, decay logits, surrogate widths) stay fixed, as in the paper. No
    noise is drawn for them, so networks that differ only in them share their noise. The noise is drawn on the CPU, so
    it is the same on every device.
    """
    direction = {}
    fixed = undecayed_parameters(model)  # of norms, neurons and methods, which may have a row for each time step
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and name not in fixed:
            noise = torch.randn(weight.shape, generator=generator)
            normalised = filter_normalised(noise, weight.detach().cpu())
            # In the weight's memory format, because another order of summation changes the last digits.
            direction[name] = torch.empty_like(weight, requires_grad=False).copy_(normalised)
    return direction


def cosine(first: Direction, second: Direction) -> float:
    """Cosine of the angle between two directions; 0.0 if one is zero."""

    def dot(one: Direction, other: Direction) -> float:
        return sum(float((one[name].cpu().double() * other[name].cpu().double()).sum()) for name in one)

    lengths = math.sqrt(dot(first, first) * dot(second, second))
    return dot(first, second) / lengths if lengths else 0.0


class Surface:
    """Loss and accuracy at (weights + alpha * first + beta * second). The model itself is never changed.

    `measure` receives a function from inputs to outputs of the displaced network, and returns the point.
    """

    def __init__(self, model: nn.Module, seed: int, measure: Callable[[Forward], Point]) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.model = model
        self.measure = measure
        self.first = random_direction(model, generator)
        self.second = random_direction(model, generator)
        self.cosine = cosine(self.first, self.second)

    @torch.no_grad()
    def at(self, alpha: float, beta: float) -> Point:
        """The values at one point of the plane. (0, 0) is exactly the trained network."""
        parameters = dict(self.model.named_parameters())
        # Copies of the buffers, because norms with batch statistics write to theirs.
        tensors: dict[str, Tensor] = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        for name, first in self.first.items():
            tensors[name] = parameters[name] + alpha * first + beta * self.second[name]
        return self.measure(lambda inputs: functional_call(self.model, tensors, (inputs,)))


@dataclass(frozen=True)
class OpenedSurface:
    """A run's surface. Its points depend on `settings` alone; `labels` are for readers."""

    surface: Surface
    settings: dict[str, Any]
    labels: dict[str, Any]


def open_surface(run: RunFolder, checkpoint: Path, arguments: LandscapeConfig) -> OpenedSurface:
    """Load a run's network and data. Raises UserError for mistakes that the user can fix."""
    places = {"data_dir": arguments.data_dir, "dataset.source": arguments.source}
    config = as_evaluated(
        run.config(),
        arguments.data_dir,
        arguments.accelerator,
        workers=arguments.workers,
        source=arguments.source,
        engine=arguments.engine,
    )
    content = load_checkpoint(checkpoint)
    opened = open_split(config, arguments.split, arguments.samples, arguments.batch_size)
    module, data, chosen = opened.module, opened.data, opened.chosen
    require_data_of(content, data)
    module.load_state_dict(content["state_dict"])
    if arguments.norm_statistics == "batch":
        use_batch_statistics(module.model)

    def batches() -> Iterable[dict[str, Tensor]]:
        for stored in opened.stored_batches():
            batch = opened.transformed(stored)
            if not finite_samples(batch["input"]).all():
                raise UserError(f"Samples of the {arguments.split} split contain NaN or infinite values.")
            yield batch

    size = 4 * len(chosen) * math.prod(data.samples.inputs.shape[1:])
    held = list(batches()) if size <= HELD_BYTES else None
    meter = Meter(config.dataset.classes).to(opened.device)

    def measure(forward: Forward) -> Point:
        with torch.inference_mode(), opened.precision():
            for batch in held or batches():
                logits = forward(batch["input"])
                meter.update(module.criterion(logits, batch["label"]), logits, batch["label"])
        values = meter.results("at")
        loss = values["at/loss"]
        return Point(loss if math.isfinite(loss) else None, values["at/accuracy"])

    settings = {
        "checkpoint_sha256": state_hash(content["state_dict"]),
        "config_sha256": _config_hash(config),
        "split": arguments.split,
        "points": arguments.points,
        "extent": arguments.extent,
        "seed": arguments.seed,
        "samples": arguments.samples,
        "batch_size": opened.batch_size,
        "norm_statistics": arguments.norm_statistics,
        "device": opened.device.type,
    }
    labels = {
        "method": config.method_label(),
        "dataset": config.dataset.name,
        "model": short_name(config.model.name),
        "seed": config.seed,
        "checkpoint": arguments.checkpoint,
        "epoch": int(content["epoch"]) + 1,
        "samples": len(chosen),
        "data": {"digest": data.digest, **{key: place for key, place in places.items() if place is not None}},
    }
    return OpenedSurface(Surface(module.model, arguments.seed, measure), settings, labels)


def use_batch_statistics(model: nn.Module) -> None:
    """Make all batch norms use batch statistics. Everything else, thresholds included, stays in evaluation mode."""
    for layer in model.modules():
        if isinstance(layer, ChannelNorm | nn.modules.batchnorm._BatchNorm):
            layer.train()


def _config_hash(config: ExperimentConfig) -> str:
    """SHA-256 of the keys that may change a point, even in its last digits: all but names, paths and display."""
    plain = config.plain()
    marks = touches(plain)
    shaping = {key: value for key, value in flat(plain) if marks[key] not in (Touches.START, Touches.SHOWN)}
    return hashlib.sha256(to_json(shaping, sort_keys=True).encode()).hexdigest()
