"""Converts stored samples to network input, one batch at a time, on the batch's device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradspike.data.augment.autoaugment import AutoAugment
from gradspike.data.augment.color_jitter import color_jitter
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.augment.nda import neuromorphic
from gradspike.data.augment.rand_augment import GREY, RandAugment
from gradspike.data.augment.random_erasing import random_erasing
from gradspike.data.augment.resample import mirror, roll, shift, square
from gradspike.data.options.base import AugmentConfig, DatasetConfig

HostIndex = NDArray[np.int64]


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Use one thread on a CPU, because many small operations would each wait for the slowest thread.

    If other processes use the cores, as in a sweep, waiting takes a hundred times as long as the operations.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class BatchTransform:
    """Augmentation (training only), conversion to float and normalisation, determined by seed, epoch and sample index.

    Images: shift, flip, AutoAugment or RandAugment, colour jitter, normalisation, cutout (zero is then the mean colour,
    as in DeVries & Taylor's code, 2017), random erasing. Frames: shift, flip, roll, NDA, cutout, division. The
    random resized crop is applied earlier, when images are decoded (pictures/encoded.py).
    """

    def __init__(
        self, config: DatasetConfig, seed: int, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
    ) -> None:
        self.config = config
        self.seed = seed
        self.mean, self.std = config.statistics((mean, std))
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, inputs: Tensor, index: Tensor, epoch: int | None, host_index: HostIndex | None = None) -> Tensor:
        """Turn images [B, C, H, W] into float32 of that shape, or frames [B, T, C, H, W] into float32 [T, B, C, H, W].

        Images are uint8; frames are uint8, or int16 if a count exceeds 255. index: int64 [B], the samples. host_index:
        the same in host memory, which avoids waiting for the device. epoch: None in evaluation, which has no
        augmentation.
        """
        with _one_thread(inputs.device):
            return self._transform(inputs, index, epoch, host_index)

    def normalised(self, pixels: Tensor) -> Tensor:
        """The network's input for images [B, C, H, W] of 0 to 1, with gradient: as from stored images in evaluation.

        Raises ValueError for frames.
        """
        if self.config.kind == "frames":
            raise ValueError("event frames have no pixels of 0 to 1")
        return self._normalise(pixels * 255, None)  # exact: float32 gives every k / 255 * 255 as k

    def _transform(self, inputs: Tensor, index: Tensor, epoch: int | None, host_index: HostIndex | None) -> Tensor:
        peak = inputs.flatten(1).amax(1).clamp_(min=1) if self.config.by_peak else None
        keep = None
        if epoch is not None:
            inputs = augment(inputs, index, self.config.augment, self.seed, epoch, host_index, self._fill())
            if self.config.augment.cutout:
                random = CounterRandom.per_sample(self.seed, epoch, index)
                draws = (Draw.CUTOUT_Y, Draw.CUTOUT_X)
                keep = ~square(random, draws, self.config.augment.cutout, *inputs.shape[-2:])[:, None]
        if self.config.kind == "frames":
            inputs = inputs.transpose(0, 1)
        values = self._normalise(inputs.to(torch.float32, memory_format=torch.contiguous_format), peak)
        if keep is not None:
            values = values.mul_(keep)
        share, fill = self.config.augment.erasing
        if epoch is not None and share:
            values = random_erasing(values, share, fill, CounterRandom.per_sample(self.seed, epoch, index))
        return values

    def _fill(self) -> tuple[int, ...]:
        """The mean colour, 0 to 255, of normalised images; else grey."""
        known = self.config.divisor is None and self.mean
        return tuple(min(255, round(255 * one)) for one in self.mean) if known else (GREY,) * self.config.channels

    def _normalise(self, values: Tensor, peak: Tensor | None) -> Tensor:
        if peak is not None:
            return values.div_(peak.view(-1, 1, 1, 1))
        divisor = self.config.divisor
        if divisor is None:
            mean, std = self._statistics(values.device)
            return values.sub_(mean).div_(std)
        return values if divisor == 1.0 else values.div_(divisor)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the stored values, [C, 1, 1], cached because each copy to a GPU takes time."""
        if device not in self._on_device:
            mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) * 255 for values in (self.mean, self.std))
            self._on_device[device] = mean, std
        return self._on_device[device]


def augment(
    inputs: Tensor,
    index: Tensor,
    config: AugmentConfig,
    seed: int,
    epoch: int,
    host_index: HostIndex | None = None,
    fill: tuple[int, ...] = (),
) -> Tensor:
    """Augment each sample of [B, ..., H, W], the same way for all its leading dimensions (time, channels).

    fill: the colour, 0 to 255 for each channel, of what RandAugment moves in.
    """
    random = CounterRandom.per_sample(seed, epoch, index)
    mirrored = random.uniform(Draw.FLIP) < 0.5 if config.flip else None
    if config.shift:
        rows = random.integers(Draw.SHIFT_Y, -config.shift, config.shift)
        columns = random.integers(Draw.SHIFT_X, -config.shift, config.shift)
        inputs = shift(inputs, rows, columns, config.shift, mirrored)
    elif mirrored is not None:
        inputs = mirror(inputs, mirrored)
    if config.policy is not None or config.rand_policy is not None or config.jitter:
        on_host = index.cpu().numpy() if host_index is None else host_index
        host_random = CounterRandom.per_sample(seed, epoch, on_host)
        if config.policy is not None:
            inputs = _autoaugment(config.policy, *inputs.shape[-2:])(inputs, host_random)
        if config.rand_policy is not None:
            inputs = RandAugment(config.rand_policy, fill)(inputs, host_random)
        if config.jitter:
            inputs = color_jitter(inputs, config.jitter, host_random)
    if largest := config.largest_roll:
        rows = random.integers(Draw.ROLL_Y, -largest, largest)
        columns = random.integers(Draw.ROLL_X, -largest, largest)
        inputs = roll(inputs, rows, columns, largest)
    if config.neuromorphic:
        inputs = neuromorphic(inputs, random)
    return inputs


@lru_cache(maxsize=8)
def _autoaugment(policy: str, height: int, width: int) -> AutoAugment:
    return AutoAugment(policy, height, width)
