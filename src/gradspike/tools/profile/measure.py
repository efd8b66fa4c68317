"""A real training of a few steps, with a time mark between one kind of work and the next."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.config.schema import ExperimentConfig
from gradspike.cost.counting import layers_of
from gradspike.data.datamodule import DataModule
from gradspike.loggers.jsonl import JsonLines
from gradspike.models.parameters import NORMALISING
from gradspike.tools.profile.clock import Clock, Part
from gradspike.tools.profile.memory import memory_of
from gradspike.training.build import check_deterministic
from gradspike.training.device import device_type
from gradspike.training.module import SpikingClassifier
from gradspike.training.probe.probe import Probe
from gradspike.training.trainer import build_trainer

PRODUCTS, NORM, LOSS, OPTIMISER = "conv, linear", "norm + neuron", "loss", "optimiser"
DATA, PROBE, OTHER = "data", "probe", "other"
KINDS = (PRODUCTS, NORM, LOSS, OPTIMISER, DATA, PROBE, OTHER)

WARM_UP = 3
PROBED_EVERY = 4  # steps here; the probe's cost is spread over the interval of the configuration


@dataclass(frozen=True)
class Profile:
    """One network: seconds of a step by part, which add up to the step; its bytes by use; and how often the host waits
    for the device in a step (None without CUDA).
    """

    seconds: dict[Part, float]
    memory: dict[str, int]
    waits: int | None

    def total(self) -> float:
        """The seconds of a step."""
        return sum(self.seconds.values())

    def kind(self, kind: str, phase: str | None = None) -> float:
        """The seconds of one kind of work."""
        return sum(one for part, one in self.seconds.items() if part.kind == kind and phase in (None, part.phase))

    def layer(self, name: str, phase: str | None = None) -> float:
        """The seconds of one layer."""
        return sum(one for part, one in self.seconds.items() if part.layer == name and phase in (None, part.phase))


def kind_of(module: nn.Module) -> str:
    """The kind of work of a layer."""
    if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
        return PRODUCTS
    return NORM if isinstance(module, NORMALISING) else OTHER


def measure(configs: Sequence[ExperimentConfig], data: DataModule, steps: int, rounds: int) -> list[Profile]:
    """Train the configurations in turn, `rounds` times. Returns the mean over the steps of each.

    `data` must be set up; all configurations use it.
    """
    looks: list[list[_Look]] = [[] for _ in configs]
    for _ in range(rounds):
        for config, those in zip(configs, looks, strict=True):
            those.append(_train(config, data, steps))
    return [_profile(config, those) for config, those in zip(configs, looks, strict=True)]


@dataclass
class _Look:
    """One training: the parts of each plain and each probed step."""

    plain: list[dict[Part, float]]
    probed: list[dict[Part, float]]
    memory: dict[str, int]
    waits: int | None


def _profile(config: ExperimentConfig, looks: list[_Look]) -> Profile:
    plain = [step for look in looks for step in look.plain]
    probed = [step for look in looks for step in look.probed]
    seconds = _mean(plain)
    if probed:
        more = sum(_mean(probed).values()) - sum(seconds.values())
        key = Part(PROBE)
        seconds[key] = seconds.get(key, 0.0) + max(more, 0.0) / config.probe.every_n_steps
    return Profile(seconds, looks[-1].memory, looks[-1].waits)


def _mean(steps: Sequence[Mapping[Part, float]]) -> dict[Part, float]:
    parts = dict.fromkeys(part for step in steps for part in step)
    return {part: sum(step.get(part, 0.0) for step in steps) / len(steps) for part in parts}


def _train(config: ExperimentConfig, data: DataModule, steps: int) -> _Look:
    probe = config.probe.model_copy(update={"every_n_steps": PROBED_EVERY})
    # Training ends after enough measured steps.
    trainer_config = config.trainer.model_copy(update={"max_epochs": 1_000_000})
    L.seed_everything(config.seed, verbose=False)
    module = SpikingClassifier(config)
    check_deterministic(config, module.model, device_type(config.trainer.accelerator))
    marks = _Marks(steps)
    callbacks: list[L.Callback] = [_Before(marks), *([Probe(probe)] if probe.enabled else []), _After(marks)]
    with tempfile.TemporaryDirectory() as folder:
        endless = config.model_copy(update={"trainer": trainer_config})
        trainer = build_trainer(endless, [JsonLines(Path(folder) / "metrics.jsonl")], callbacks, validate=False)
        trainer.fit(module, data)
    assert marks.batch is not None
    module.to(trainer.strategy.root_device)  # a GPU, from which Lightning has moved it
    memory = memory_of(config, module, marks.batch, trainer.optimizers[0], kind_of)
    plain, probed = marks.steps(probed=PROBED_EVERY if probe.enabled and config.model.activation == "spike" else None)
    return _Look(plain, probed, memory, marks.waits)


class _Marks:
    """The clock of one training, and the first marks of its steps."""

    def __init__(self, steps: int) -> None:
        self.wanted = steps
        self.clock = Clock(torch.device("cpu"))
        self.stack: list[Part] = []
        self.begins: list[tuple[int, int]] = []
        """Number of the mark, and of the batch in its epoch."""
        self.hooked: Tensor | None = None
        self.batch: dict[str, Tensor] | None = None
        self.waits: int | None = None

    def now(self, part: Part) -> None:
        """Start `part`."""
        self.clock.mark(part)

    def enter(self, part: Part, module: nn.Module, inputs: Any) -> None:
        """Start a layer."""
        self.stack.append(part)
        self.now(part)

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """End a layer. Its backward pass starts when the gradient of its output arrives."""
        part = self.stack.pop()
        # A container's output is that of its last layer, which already has the hook.
        if isinstance(output, Tensor) and output.requires_grad and output is not self.hooked:
            self.hooked = output
            output.register_hook(lambda _gradient: self.now(part.backward()))  # type: ignore[no-untyped-call]
        self.now(self.stack[-1] if self.stack else Part(OTHER, "forward"))

    def steps(self, probed: int | None) -> tuple[list[dict[Part, float]], list[dict[Part, float]]]:
        """The parts of plain and of probed steps, without warm-up and without the first and last step of an epoch."""
        plain: list[dict[Part, float]] = []
        with_probe: list[dict[Part, float]] = []
        for number in range(WARM_UP, len(self.begins) - 1):
            (first, batch), (last, following) = self.begins[number : number + 2]
            if batch == 0 or following != batch + 1:
                continue
            parts = self.clock.between(first, last)
            (with_probe if probed is not None and number % probed == 0 else plain).append(parts)
        return plain, with_probe

    def enough(self) -> bool:
        """Whether enough steps have been measured."""
        usable = [
            1
            for (_, batch), (_, following) in zip(self.begins[WARM_UP:], self.begins[WARM_UP + 1 :], strict=False)
            if batch and following == batch + 1
        ]
        return len(usable) >= self.wanted


class _Before(L.Callback):
    """The first callback."""

    def __init__(self, marks: _Marks) -> None:
        self.marks = marks
        self._handles: list[Any] = []
        self._warnings: Any = None
        self._seen: list[warnings.WarningMessage] = []

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SpikingClassifier)
        self.marks.clock = Clock(pl_module.device)
        layers = [(Part(kind_of(layer), "forward", name), layer) for name, layer in layers_of(pl_module.model)]
        layers += [(Part(OTHER, "forward"), pl_module.model), (Part(LOSS, "forward"), pl_module.criterion)]
        for part, layer in layers:
            self._handles.append(layer.register_forward_pre_hook(partial(self.marks.enter, part)))
            self._handles.append(layer.register_forward_hook(self.marks.leave))

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        marks = self.marks
        marks.begins.append((len(marks.clock.marks), batch_idx))
        marks.now(Part(PROBE))
        marks.batch = batch
        self._count_waits()

    @override
    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.marks.now(Part(OPTIMISER))

    @override
    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self.marks.now(Part(LOSS, "backward"))

    @override
    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.marks.now(Part(OTHER))

    @override
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.marks.now(Part(OPTIMISER))

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.marks.now(Part(PROBE))

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for handle in self._handles:
            handle.remove()

    def _count_waits(self) -> None:
        """During the last warm-up step, count torch's warnings, one for each wait."""
        if self._warnings is not None:
            torch.cuda.set_sync_debug_mode("default")
            self.marks.waits = sum("synchron" in str(one.message) for one in self._seen)
            self._warnings.__exit__(None, None, None)
            self._warnings = None
        elif len(self.marks.begins) == WARM_UP and self.marks.clock.device.type == "cuda":
            self._warnings = warnings.catch_warnings(record=True)
            self._seen = self._warnings.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")


class _After(L.Callback):
    """The last callback."""

    def __init__(self, marks: _Marks) -> None:
        self.marks = marks

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.marks.now(Part(OTHER, "forward"))

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.marks.enough():
            trainer.should_stop = True
        self.marks.now(Part(DATA))
