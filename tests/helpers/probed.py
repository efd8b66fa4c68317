"""A network of two spiking layers that keeps its intermediate tensors, trained under the probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from gradspike.config.schema import ProbeConfig
from gradspike.loggers.jsonl import JsonLines
from gradspike.methods.registry import METHODS
from gradspike.models.spiking_layers import name_layers
from gradspike.spiking_norm import LayerContext
from gradspike.training.probe.probe import Probe
from helpers.part_options import neuron_config, norm_config

Record = dict[str, Any]


STEPS, BATCH, FEATURES = 2, 6, 5


METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "fixed_sg": {},
    "mpd_agl": {},
    "ds_atgo": {},
    "psg": {"width_per": "channel"},
}


class Net(nn.Module):
    """Two spiking layers of 4 and 3 neurons between linear ones; its intermediate tensors are kept."""

    def __init__(self, method: str, neuron: str) -> None:
        super().__init__()
        config = METHODS.config_class(method)(name=method, **METHOD_OPTIONS[method])
        context = LayerContext(STEPS, neuron_config(neuron), config, norm_config())  # type: ignore[arg-type]
        self.inlet, self.first = nn.Linear(FEATURES, 4), context.layer(4)
        self.middle, self.second = nn.Linear(4, 3), context.layer(3)
        self.outlet = nn.Linear(3, 2)
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}
        name_layers(self)

    def forward(self, frames: Tensor) -> Tensor:
        y = self.inlet(frames.flatten(0, 1))
        s = self.first(y)
        self.kept["first"] = (y, s)
        y = self.middle(s)
        s = self.second(y)
        self.kept["second"] = (y, s)
        return self.outlet(s).unflatten(0, (STEPS, -1)).mean(0)


class Fit(L.LightningModule):
    """Trains Net on batches [B, T, F] towards zero, under plain SGD."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def loss(self, batch: list[Tensor]) -> Tensor:
        return self.net(batch[0].transpose(0, 1)).square().sum()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.loss(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def samples(count: int, seed: int) -> Tensor:
    return torch.randn(count, STEPS, FEATURES, generator=torch.Generator().manual_seed(seed))


def loader(data: Tensor) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), batch_size=BATCH)


TRAIN, VAL = samples(5 * BATCH, seed=1), samples(2 * BATCH + 3, seed=2)


def fit(net: Net, folder: Path, epochs: int = 1, loggers: list[Any] | None = None, **options: Any) -> list[Record]:
    """Records of a training with 5 steps per epoch; the last of three validation batches has half the size."""
    metrics = JsonLines(folder / "metrics.jsonl")
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[Probe(ProbeConfig(**options))],
        logger=[metrics, *(loggers or [])],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Fit(net), loader(TRAIN), loader(VAL))
    return read(metrics.file)


def read(file: Path) -> list[Record]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def new_net(method: str = "mpd_agl", neuron: str = "plif") -> Net:
    torch.manual_seed(0)
    return Net(method, neuron)
