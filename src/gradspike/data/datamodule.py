"""The DataModule for all data sets: batches in reproducible order for any number of devices."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
from torch import Tensor
from typing_extensions import override

from gradspike.data.augment.batch import BatchTransform
from gradspike.data.files.data_dir import check_data_dir
from gradspike.data.loader import (
    EpochLoader,
    Indices,
    evaluation_batches,
    forks_workers,
    in_memory,
    training_batches,
    training_order,
)
from gradspike.data.options.base import DatasetConfig
from gradspike.data.prepared.digests import trusting
from gradspike.data.registry import DATASETS
from gradspike.data.source import Samples, Source, Split
from gradspike.shown import expanded

HOST_INDEX = "host_index"


class DataModule(lightning.LightningDataModule):
    """Batches of {"input", "label", "index"} for training, validation and test.

    The loaded input is uint8 [B, ...]; label and index are int64 [B]. On the device, images become float [B, C, H, W],
    frames [T, B, C, H, W] (time first). (seed, epoch, sample index) determines the order and augmentation of training
    samples. Use with Trainer(use_distributed_sampler=False), because this class divides samples among devices.
    """

    def __init__(
        self, config: DatasetConfig, time_steps: int, seed: int, data_dir: str | Path, accumulate: int = 1
    ) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.accumulate = accumulate
        """Micro-batches per optimiser step; dataset.batch_size counts all of them together."""
        self.data_dir = expanded(data_dir)
        self.source: Source[Any] = DATASETS.build(Source, config, time_steps, self.data_dir)  # type: ignore[type-abstract]
        self.skip_batches: int | None = None
        """Batches to skip in the first epoch; None: those that a resumed trainer has already completed."""
        self.test_split: Split = "test"
        """The split that `Trainer.test` evaluates."""
        self._samples: Samples | None = None
        self._transform: BatchTransform | None = None

    @override
    def prepare_data(self) -> None:
        """Prepare the data on disk if needed. Raises UserError if data_dir cannot be used."""
        check_data_dir(self.data_dir)
        self.source.checked()

    @override
    def setup(self, stage: str | None = None) -> None:
        """Open all splits at once, which takes milliseconds."""
        if self._samples is None:
            # Lightning calls prepare_data on the first rank of each node, which compares digests for the others.
            another_prepares = self.trainer is not None and self.trainer.local_rank > 0
            with trusting() if another_prepares else nullcontext():
                samples = self.source.checked()
            limit = self.config.limit
            self._samples = samples if limit is None else samples.limited(limit)
            self._transform = BatchTransform(self.config, self.seed, self._samples.mean, self._samples.std)

    @property
    def samples(self) -> Samples:
        """All samples of all splits."""
        assert self._samples is not None, "call setup() first"
        return self._samples

    @property
    def transform(self) -> BatchTransform:
        """What turns stored samples into the network's input."""
        assert self._transform is not None, "call setup() first"
        return self._transform

    @cached_property
    def digest(self) -> str:
        """The digest of the samples, computed once."""
        return self.samples.digest()

    def input_facts(self) -> dict[str, Any]:
        """What, besides the configuration, turns a new sample into the network's input: plain values for checkpoints.

        mean, std: see `Samples`. class_names: by label; empty if the data set has none.
        """
        samples = self.samples
        # Plain numbers, because numpy's may not be in a file that loads with weights_only=True.
        mean, std = ([float(value) for value in values] for values in (samples.mean, samples.std))
        return {"mean": mean, "std": std, "class_names": [str(name) for name in samples.class_names]}

    @override
    def train_dataloader(self) -> EpochLoader:
        if forks_workers() or not self.config.workers:  # other processes would each receive a copy
            self._samples = in_memory(self.samples)
        train = self.samples.indices("train")
        rank, world_size = self._place()
        skipped: dict[int, int] = {}

        def divided(order: Indices) -> list[Indices]:
            return training_batches(order, self.config.batch_size, rank, world_size, self.accumulate)

        def plan() -> list[Indices]:
            epoch = self._epoch()
            if not skipped:
                skipped[epoch] = self._resumed_at() if self.skip_batches is None else self.skip_batches
            batches = divided(training_order(train, self.seed, epoch))
            return batches[skipped.get(epoch, 0) :]

        count = len(divided(train))
        return EpochLoader(
            self.samples,
            plan,
            count,
            self.config.workers,
            moment=lambda: (self.seed, self._epoch()),
            grouped=True,
            pin=self._on_gpu(),
        )

    @override
    def val_dataloader(self) -> EpochLoader | list[EpochLoader]:
        return self._evaluation("val") if len(self.samples.indices("val")) else []

    @override
    def test_dataloader(self) -> EpochLoader:
        return self._evaluation(self.test_split)

    @override
    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Keep a copy of the sample indices on the host, because reading them back would wait for the device.

        The samples of a group are transferred together, with its first batch.
        """
        if "group" in batch:
            return {name: value for name, value in batch.items() if name != "input"}
        return {**batch, HOST_INDEX: batch["index"].numpy()}

    @override
    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Tensor]:
        """Augment (in training) and normalise a batch on its device."""
        if not len(batch["label"]):
            return batch  # this rank's share is empty; the evaluation skips it
        transform, epoch = self.transform, None
        if self.trainer is not None and self.trainer.training:
            epoch = self._epoch()
        if "group" in batch:
            group, start, stop = batch["group"]
            together = group.transformed(
                lambda inputs, index, on_host: transform(inputs, index, epoch, on_host), batch["label"].device
            )
            inputs = together[start:stop] if self.config.kind == "image" else together[:, start:stop].contiguous()
        else:
            inputs = transform(batch["input"], batch["index"], epoch, batch.get(HOST_INDEX))
        return {"input": inputs, "label": batch["label"], "index": batch["index"]}

    def _evaluation(self, split: Split) -> EpochLoader:
        batches = evaluation_batches(self.samples.indices(split), self.config.eval_batch_size, *self._place())
        return EpochLoader(self.samples, lambda: batches, len(batches), self.config.workers, pin=self._on_gpu())

    def _on_gpu(self) -> bool:
        """Whether batches go to a GPU. On a CPU, pinned memory would initialise CUDA."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    def _resumed_at(self) -> int:
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer is not None else 0
