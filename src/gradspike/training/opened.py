"""A run's network and one split of its data on one device, for measurements that Lightning's loops do not make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradspike.config.schema import ExperimentConfig
from gradspike.data.chosen import choose_samples
from gradspike.data.datamodule import DataModule
from gradspike.data.loader import EpochLoader, evaluation_batches
from gradspike.data.source import Split
from gradspike.errors import ConfigError
from gradspike.shown import counted
from gradspike.training.build import build_data, require_samples
from gradspike.training.device import check_device
from gradspike.training.engine_choice import first_engine, settle_engine
from gradspike.training.module import SpikingClassifier
from gradspike.training.trainer import build_trainer, quieten


@dataclass(frozen=True)
class Opened:
    """The network is on its device, in evaluation, with untrained weights. `chosen` are the indices of the samples."""

    config: ExperimentConfig
    module: SpikingClassifier
    data: DataModule
    trainer: L.Trainer
    chosen: NDArray[np.int64]
    batch_size: int

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.trainer.strategy.root_device

    def stored_batches(self) -> Iterator[dict[str, Tensor]]:
        """Batches as the data set stores them, on the device: input [B, ...], label [B], index [B]."""
        plan = evaluation_batches(self.chosen, self.batch_size)
        workers = self.config.dataset.workers
        loader = EpochLoader(self.data.samples, lambda: plan, len(plan), workers, pin=self.device.type == "cuda")
        for batch in loader:
            yield {key: value.to(self.device) for key, value in batch.items()}

    def transformed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A stored batch with the network's input."""
        return self.data.on_after_batch_transfer(batch, 0)

    def precision(self) -> AbstractContextManager[Any]:
        """The context in which the network runs with the precision of its training."""
        context: AbstractContextManager[Any] = self.trainer.precision_plugin.forward_context()
        return context


def open_split(
    config: ExperimentConfig,
    split: Split,
    samples: int | None = None,
    batch_size: int | None = None,
    at_most: int | None = None,
) -> Opened:
    """Build network and data of a configuration, which `as_evaluated` made.

    samples: use exactly this many, evenly by class. at_most: as many, or all of a smaller split. batch_size: None for
    that of the configuration. Raises ConfigError for more `samples` than the split has, UserError for other mistakes
    that the user can fix.
    """
    quieten()
    check_device(config.trainer, section="")
    data, module = build_data(config), SpikingClassifier(config, first_engine(config))
    # Lightning's trainer sets device, precision and determinism, so that results equal those of `gradspike evaluate`.
    trainer = build_trainer(config, loggers=[], callbacks=[])
    module.to(trainer.strategy.root_device).eval()
    data.prepare_data()
    data.setup()
    require_samples(data, split)
    settle_engine(module.model, config, len(data.samples.indices("train")))
    every = data.samples.indices(split)
    if samples is not None and samples > len(every):
        raise ConfigError(f"samples={samples}: the split {split} has {counted(len(every), 'sample')}.")
    chosen = choose_samples(every, data.samples.labels, at_most if samples is None else samples)
    return Opened(config, module, data, trainer, chosen, batch_size or config.dataset.eval_batch_size)
