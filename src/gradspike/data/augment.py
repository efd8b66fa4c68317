"""From stored uint8 samples to network input, a batch at a time, on whatever device the batch is."""

from __future__ import annotations

from enum import IntEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from gradspike.data.random import CounterRandom
from gradspike.data.registry import AugmentConfig, DatasetConfig, EventsConfig, ImageConfig


class Draw(IntEnum):
    """The number of each random decision about a sample. New ones get new numbers: the others keep their values."""

    ORDER = 0
    SHIFT_Y = 1
    SHIFT_X = 2
    FLIP = 3


class BatchTransform:
    """Augmentation (training only), conversion to float, normalisation. Epoch and sample index decide."""

    def __init__(
        self, config: DatasetConfig, seed: int, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
    ) -> None:
        self.config = config
        self.seed = seed
        self.mean, self.std = mean, std
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, inputs: Tensor, index: Tensor, epoch: int | None) -> Tensor:
        """Turn uint8 [B, C, H, W] into float32 of that shape, or uint8 [B, T, C, H, W] into float32 [T, B, C, H, W].

        index: int64 [B], the samples; epoch: None leaves the samples as they are (evaluation).
        """
        if epoch is not None:
            inputs = augment(inputs, index, self.config.augment, self.seed, epoch)
        if self.config.kind == "frames":
            inputs = inputs.transpose(0, 1)
        return self._normalise(inputs.to(torch.float32, memory_format=torch.contiguous_format))

    def _normalise(self, values: Tensor) -> Tensor:
        if isinstance(self.config, EventsConfig):
            return values if self.config.count_scale == 1.0 else values.div_(self.config.count_scale)
        if isinstance(self.config, ImageConfig) and self.config.normalize == "standard":
            mean, std = self._statistics(values.device)
            return values.sub_(mean).div_(std)
        return values.div_(255)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the stored values, [C, 1, 1]; kept, as each copy to a GPU would cost time."""
        if device not in self._on_device:
            mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) * 255 for values in (self.mean, self.std))
            self._on_device[device] = mean, std
        return self._on_device[device]


def augment(inputs: Tensor, index: Tensor, config: AugmentConfig, seed: int, epoch: int) -> Tensor:
    """Change each sample of [B, ..., H, W] at random; all leading dimensions of a sample (time, channels) alike."""
    random = CounterRandom.per_sample(seed, epoch, index)
    if config.shift:
        rows = random.integers(Draw.SHIFT_Y, -config.shift, config.shift)
        columns = random.integers(Draw.SHIFT_X, -config.shift, config.shift)
        inputs = shift(inputs, rows, columns, config.shift)
    if config.flip:
        flipped = (random.uniform(Draw.FLIP) < 0.5).view(-1, *[1] * (inputs.ndim - 1))
        inputs = torch.where(flipped, inputs.flip(-1), inputs)
    return inputs


def shift(inputs: Tensor, rows: Tensor, columns: Tensor, largest: int) -> Tensor:
    """Move each sample of [B, ..., H, W] down by rows[b] and right by columns[b], zeros moving in.

    rows, columns: int64 [B], -largest to largest.
    """
    height, width = inputs.shape[-2:]
    padded = F.pad(inputs.flatten(1, -3), (largest, largest, largest, largest))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    sample = torch.arange(len(inputs), device=inputs.device)
    return windows[sample, :, largest - rows, largest - columns].view(inputs.shape)
