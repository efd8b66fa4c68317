"""Mixup and CutMix of training batches (timm's), with random numbers that depend on the batch's place alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from gradspike.config.schema import LossConfig
from gradspike.data.augment.counter_random import mix_integers


class Mixing:
    """Mixes sample i of a batch with sample B - 1 - i, all pairs by the same share, and their labels likewise.

    One draw a batch (timm's mode `batch`): whether it is mixed, by mixup (Zhang et al., ICLR 2018) or CutMix (Yun et
    al., ICCV 2019), with which share and which rectangle. It follows from (seed, epoch, batch index, rank). Labels are
    not smoothed here; the loss does that.
    """

    def __init__(self, config: LossConfig, classes: int, seed: int) -> None:
        from timm.data.mixup import Mixup  # takes a second, which runs without mixing need not wait

        self.seed = seed
        self._mix = Mixup(  # type: ignore[no-untyped-call]
            mixup_alpha=config.mixup,
            cutmix_alpha=config.cutmix,
            prob=config.mix_probability,
            label_smoothing=0.0,
            num_classes=classes,
        )

    def __call__(self, inputs: Tensor, labels: Tensor, epoch: int, batch_idx: int, rank: int) -> tuple[Tensor, Tensor]:
        """Mixed inputs and the shares of the classes [B, K].

        Images [B, C, H, W] or frames [T, B, C, H, W], which are mixed alike at all steps; may be changed in place. The
        last sample of an odd batch has no partner and stays as it is.
        """
        steps = inputs.shape[0] if inputs.ndim == 5 else None
        images = inputs if steps is None else inputs.transpose(0, 1).flatten(1, 2)
        even = len(images) - len(images) % 2
        with _numpy_seeded(mix_integers(self.seed, epoch, batch_idx, rank)):
            mixed, shares = self._mix(images[:even], labels[:even])
        if even < len(images):
            mixed = torch.cat([mixed, images[even:]])
            alone = torch.nn.functional.one_hot(labels[even:], shares.shape[1]).to(shares.dtype)
            shares = torch.cat([shares, alone])
        if steps is not None:
            mixed = mixed.unflatten(1, (steps, -1)).transpose(0, 1)
        return mixed, shares


def build_mixing(config: LossConfig, classes: int, seed: int) -> Mixing | None:
    """What a configuration asks for, None where nothing is mixed."""
    return Mixing(config, classes, seed) if config.mixup or config.cutmix else None


@contextmanager
def _numpy_seeded(key: int) -> Iterator[None]:
    """Seed numpy's global generator, from which timm draws, with an int64; leave it afterwards as it was."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed([key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF])  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
