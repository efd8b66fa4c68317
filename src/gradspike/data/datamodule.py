"""The one DataModule: any data set of the registry, in reproducible order, in batches, on any number of devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from torch import Tensor

from gradspike.data.augment.batch import BatchTransform
from gradspike.data.files.data_dir import check_data_dir
from gradspike.data.loader import EpochLoader, Indices, evaluation_batches, in_memory, training_batches, training_order
from gradspike.data.options.base import DatasetConfig, FilesConfig
from gradspike.data.registry import DATASETS
from gradspike.data.source import Samples, Source, Split

HOST_INDEX = "host_index"


class DataModule(lightning.LightningDataModule):
    """Batches of {"input", "label", "index"} for training, validation and test.

    As loaded, the input is uint8 [B, ...], label and index are int64 [B]. On the device, images become float [B, C, H,
    W], frames [T, B, C, H, W] (time first). Order and augmentation of the training samples follow from (seed, epoch,
    sample index). Use with Trainer(use_distributed_sampler=False): the samples are divided among devices here.
    """

    def __init__(
        self, config: DatasetConfig, time_steps: int, seed: int, data_dir: str | Path, accumulate: int = 1
    ) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.accumulate = accumulate
        """Training batches that make one optimiser step; dataset.batch_size is what the step sees of all of them."""
        self.data_dir = Path(data_dir).expanduser()
        source: type[Source[Any]] = DATASETS.implementation(config.name)
        self.source = source(config, time_steps, self.data_dir)
        self.skip_batches: int | None = None
        """Batches to leave out of the first epoch; None: as many as a trainer that resumes inside an epoch has done."""
        self.test_split: Split = "test"
        """The split that `Trainer.test` goes through."""
        self._samples: Samples | None = None
        self._transform: BatchTransform | None = None

    def prepare_data(self) -> None:
        """Prepare the data on disk where that has not been done. Raises UserError for a folder that cannot be used."""
        check_data_dir(self.data_dir)
        self.source.load()

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared data; all splits at once, since opening costs milliseconds."""
        if self._samples is None:
            samples = self.source.load()
            limit = self.config.train_per_class if isinstance(self.config, FilesConfig) else None
            self._samples = samples if limit is None else samples.limited(limit)
            self._transform = BatchTransform(self.config, self.seed, self._samples.mean, self._samples.std)

    @property
    def samples(self) -> Samples:
        """All samples of all splits."""
        assert self._samples is not None, "call setup() first"
        return self._samples

    def train_dataloader(self) -> EpochLoader:
        """The training split in the order of the trainer's current epoch."""
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
            self.samples, plan, count, self.config.workers, moment=lambda: (self.seed, self._epoch()), grouped=True
        )

    def val_dataloader(self) -> EpochLoader | list[EpochLoader]:
        """The validation split; no loader where nothing is held out."""
        return self._evaluation("val") if len(self.samples.indices("val")) else []

    def test_dataloader(self) -> EpochLoader:
        """The split named by `test_split`."""
        return self._evaluation(self.test_split)

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Keep the sample indices on the host as well: asking the device for them would wait for all of its work.

        Of a group, the samples travel together, with its first batch.
        """
        if "group" in batch:
            return {name: value for name, value in batch.items() if name != "input"}
        return {**batch, HOST_INDEX: batch["index"].numpy()}

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Tensor]:
        """Augment (while training) and normalise a batch that has arrived on its device."""
        assert self._transform is not None, "call setup() first"
        transform, epoch = self._transform, None
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
        return EpochLoader(self.samples, lambda: batches, len(batches), self.config.workers)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    def _resumed_at(self) -> int:
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer is not None else 0
