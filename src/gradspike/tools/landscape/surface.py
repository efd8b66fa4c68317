"""Two random directions in weight space, and the loss and accuracy of a network on the plane they span."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from gradspike.config.marks import touches
from gradspike.config.schema import ExperimentConfig, short_name
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.loader import EpochLoader, evaluation_batches
from gradspike.errors import UserError
from gradspike.json_text import to_json
from gradspike.models.parameters import undecayed_parameters
from gradspike.nested import flat
from gradspike.norms.base import ChannelNorm
from gradspike.runs.folder import RunFolder
from gradspike.tools.landscape.numbers import Point
from gradspike.touches import Touches
from gradspike.training.build import build_data, require_data_of, require_samples
from gradspike.training.checkpoint import load_checkpoint, state_hash
from gradspike.training.device import check_device
from gradspike.training.engine_choice import first_engine, settle_engine
from gradspike.training.evaluate import as_evaluated
from gradspike.training.finite import finite_samples
from gradspike.training.metrics import Meter
from gradspike.training.module import SpikingClassifier
from gradspike.training.trainer import build_trainer, quieten

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
    quieten()
    places = {"data_dir": arguments.data_dir, "dataset.source": arguments.source}
    config = as_evaluated(
        run.config(),
        arguments.data_dir,
        arguments.accelerator,
        workers=arguments.workers,
        source=arguments.source,
        engine=arguments.engine,
    )
    check_device(config.trainer, section="")
    content = load_checkpoint(checkpoint)
    data, module = build_data(config), SpikingClassifier(config, first_engine(config))
    module.load_state_dict(content["state_dict"])
    # Lightning's trainer sets device, precision and determinism, so the centre equals `gradspike evaluate`.
    trainer = build_trainer(config, loggers=[], callbacks=[])
    device = trainer.strategy.root_device
    module.to(device).eval()
    if arguments.norm_statistics == "batch":
        use_batch_statistics(module.model)

    data.prepare_data()
    data.setup()
    require_data_of(content, data)
    require_samples(data, arguments.split)
    settle_engine(module.model, config, len(data.samples.indices("train")))
    samples = data.samples
    chosen = choose_samples(samples.indices(arguments.split), samples.labels, arguments.samples)
    batch_size = arguments.batch_size or config.dataset.eval_batch_size
    plan = evaluation_batches(chosen, batch_size)
    loader = EpochLoader(samples, lambda: plan, len(plan), config.dataset.workers, pin=device.type == "cuda")

    def batches() -> Iterable[dict[str, Tensor]]:
        for batch in loader:
            batch = data.on_after_batch_transfer({key: value.to(device) for key, value in batch.items()}, 0)
            if not finite_samples(batch["input"]).all():
                raise UserError(f"Samples of the {arguments.split} split contain NaN or infinite values.")
            yield batch

    size = 4 * len(chosen) * math.prod(samples.inputs.shape[1:])
    held = list(batches()) if size <= HELD_BYTES else None
    meter = Meter(config.dataset.classes).to(device)

    def measure(forward: Forward) -> Point:
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
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
        "batch_size": batch_size,
        "norm_statistics": arguments.norm_statistics,
        "device": device.type,
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


def choose_samples(split: NDArray[np.int64], labels: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """At most `limit` samples of `split`, evenly by class, in ascending order; the same on every machine.

    labels: int64 [N], of all samples of the data set. A larger limit includes the samples of a smaller one.
    """
    if limit is None or limit >= len(split):
        return split
    keys = CounterRandom.per_sample(0, 0, split).bits(0)
    rank = np.zeros_like(split)  # of a sample within its class
    for label in np.unique(labels[split]):
        members = np.flatnonzero(labels[split] == label)
        rank[members[np.argsort(keys[members], kind="stable")]] = np.arange(len(members))
    return np.sort(split[np.lexsort((keys, rank))[:limit]])


def _config_hash(config: ExperimentConfig) -> str:
    """SHA-256 of the keys that may change a point, even in its last digits: all but names, paths and display."""
    plain = config.plain()
    marks = touches(plain)
    shaping = {key: value for key, value in flat(plain) if marks[key] not in (Touches.START, Touches.SHOWN)}
    return hashlib.sha256(to_json(shaping, sort_keys=True).encode()).hexdigest()
