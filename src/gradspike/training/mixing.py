"""timm's mixup and CutMix for training batches, with random numbers that depend only on the batch's position."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from gradspike.config.schema import LossConfig
from gradspike.data.augment.counter_random import mix_integers


class Mixing:
    """Mixes sample i of a batch with sample B - 1 - i, and their labels, with one ratio for all pairs.

    One draw per batch (timm's mode `batch`) decides whether to mix, by mixup (Zhang et al., ICLR 2018) or CutMix (Yun
    et al., ICCV 2019), and with which ratio and rectangle. It depends on (seed, epoch, batch index) and is the same on
    all ranks. The loss smooths the labels.
    """

    def __init__(self, config: LossConfig, classes: int, seed: int) -> None:
        from timm.data.mixup import Mixup  # takes a second to import

        self.seed = seed
        self.off_epoch = config.mixing_off_epoch
        self._mix = Mixup(  # type: ignore[no-untyped-call]
            mixup_alpha=config.mixup,
            cutmix_alpha=config.cutmix,
            prob=config.mix_probability,
            label_smoothing=0.0,
            num_classes=classes,
        )

    def __call__(self, inputs: Tensor, labels: Tensor, epoch: int, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Mix inputs, possibly in place. Returns them and the class probabilities [B, K].

        From epoch `mixing_off_epoch` on, inputs stay as they are and the probabilities are those of the labels.

        inputs: images [B, C, H, W] or frames [T, B, C, H, W], mixed the same way at all steps. The last sample of an
        odd batch has no partner and stays unchanged.
        """
        if self.off_epoch is not None and epoch >= self.off_epoch:
            return inputs, torch.nn.functional.one_hot(labels, self._mix.num_classes).float()
        steps = inputs.shape[0] if inputs.ndim == 5 else None
        images = inputs if steps is None else inputs.transpose(0, 1).flatten(1, 2)
        even = len(images) - len(images) % 2
        with _numpy_seeded(mix_integers(self.seed, epoch, batch_idx, 0)):
            mixed, shares = self._mix(images[:even], labels[:even])
        if even < len(images):
            mixed = torch.cat([mixed, images[even:]])
            alone = torch.nn.functional.one_hot(labels[even:], shares.shape[1]).to(shares.dtype)
            shares = torch.cat([shares, alone])
        if steps is not None:
            mixed = mixed.unflatten(1, (steps, -1)).transpose(0, 1)
        return mixed, shares


def build_mixing(config: LossConfig, classes: int, seed: int) -> Mixing | None:
    """The mixing of a configuration, or None."""
    return Mixing(config, classes, seed) if config.mixup or config.cutmix else None


@contextmanager
def _numpy_seeded(key: int) -> Iterator[None]:
    """Seed numpy's global generator, which timm uses, with an int64. Restores its state afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed([key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF])  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
