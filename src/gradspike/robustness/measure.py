"""The accuracy of a run's checkpoints on attacked or corrupted samples of one split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gradspike.config.schema import ExperimentConfig
from gradspike.data.source import Split
from gradspike.errors import UserError
from gradspike.robustness.attacks import fgsm, pgd
from gradspike.robustness.corruptions import event_drop, noise
from gradspike.robustness.options import RESTARTS, STEPS, RobustnessKeys
from gradspike.robustness.surrogate import use_surrogate
from gradspike.statistics import interval_of_share
from gradspike.training.build import require_data_of
from gradspike.training.callbacks.interrupt import SignalGuard
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.opened import Opened, open_split

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Level:
    """The result at one strength; 0 is the unchanged input."""

    strength: float
    correct: int
    samples: int

    @property
    def accuracy(self) -> float:
        """As a fraction."""
        return self.correct / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy over samples."""
        return interval_of_share(self.correct, self.samples)


@dataclass(frozen=True)
class Robustness:
    """The results of one checkpoint, in ascending strength."""

    levels: tuple[Level, ...]
    without_gradient: int | None
    """Samples whose gradient at the unchanged input is 0 in every pixel, so that no attack finds a direction; None
    without an attack."""
    epoch: int


def measure(
    config: ExperimentConfig,
    checkpoints: Sequence[Path],
    split: Split,
    keys: RobustnessKeys,
    report: Callable[[str], None],
) -> dict[str, Robustness]:
    """Measure each checkpoint, by its name.

    config: the run's, from `as_evaluated`. report: called with a line of progress. Raises UserError for mistakes that
    the user can fix, among them samples other than those used for training.
    """
    with SignalGuard():
        contents = {path: load_checkpoint(path) for path in checkpoints}
        opened = open_split(config, split, keys.samples)
        if keys.attack is not None:
            use_surrogate(opened.module.model, keys.surrogate, keys.width)
        opened.module.requires_grad_(False)
        found = {}
        for path, content in contents.items():
            require_data_of(content, opened.data)
            try:
                opened.module.load_state_dict(content["state_dict"])
            except RuntimeError as error:
                raise UserError(f"{path}: does not fit the network that the run's config.yaml describes.") from error
            report(f"checkpoint {path.stem}")
            found[path.stem] = _Measurement(opened, keys).run(int(content["epoch"]) + 1, report)
        return found


class _Measurement:
    """Counts correct predictions, batch by batch."""

    def __init__(self, opened: Opened, keys: RobustnessKeys) -> None:
        self.opened = opened
        self.keys = keys
        self.strengths = (0.0, *keys.strengths)
        self.correct = dict.fromkeys(self.strengths, 0)
        self.without_gradient = 0

    def run(self, epoch: int, report: Callable[[str], None]) -> Robustness:
        """All batches of the split."""
        total, done = len(self.opened.chosen), 0
        for batch in self.opened.stored_batches():
            for strength, right in self._of_batch(batch):
                self.correct[strength] += int(right.sum())
            done += len(batch["label"])
            report(f"{done:,} of {total:,} samples")
        levels = tuple(Level(strength, self.correct[strength], total) for strength in self.strengths)
        return Robustness(levels, self.without_gradient if self.keys.attack is not None else None, epoch)

    def _of_batch(self, batch: Batch) -> Iterator[tuple[float, Tensor]]:
        """Which samples are predicted correctly at each strength, bool [B]."""
        clean = self.opened.transformed(batch)
        if not torch.isfinite(clean["input"]).all():
            raise UserError("Samples of the split contain NaN or infinite values.")
        right = self._right(clean["input"], batch["label"])
        yield 0.0, right
        if self.keys.corrupt == "event_drop":
            yield from self._dropped(batch)
        elif self.keys.corrupt == "noise":
            pixels = _pixels(batch)
            for level in self.keys.strengths:
                noisy = noise(pixels, level, self.keys.seed or 0, batch["index"])
                yield level, self._right(self._input(noisy), batch["label"])
        else:
            yield from self._attacked(batch, right)

    def _dropped(self, batch: Batch) -> Iterator[tuple[float, Tensor]]:
        for level in self.keys.strengths:
            left = event_drop(batch["input"], level, self.keys.seed or 0, batch["index"])
            inputs = self.opened.transformed({**batch, "input": left})["input"]
            yield level, self._right(inputs, batch["label"])

    def _attacked(self, batch: Batch, right: Tensor) -> Iterator[tuple[float, Tensor]]:
        """An attack may also keep the image: a sample that is wrong without one stays wrong."""
        keys, pixels, labels = self.keys, _pixels(batch), batch["label"]

        def gradient(images: Tensor) -> Tensor:
            return self._gradient(images, labels)

        clean_gradient = gradient(pixels)
        self.without_gradient += int((clean_gradient == 0).flatten(1).all(1).sum())
        for epsilon in keys.strengths:
            if keys.attack == "fgsm":
                attacks = iter([fgsm(pixels, lambda images: clean_gradient, epsilon)])
            else:
                attacks = pgd(
                    pixels,
                    gradient,
                    epsilon,
                    steps=keys.steps or STEPS,
                    step_size=keys.step_size,
                    restarts=keys.restarts or RESTARTS,
                    seed=keys.seed or 0,
                    index=batch["index"],
                )
            robust = right
            for images in attacks:
                robust = robust & self._right(self._input(images), labels)
            yield epsilon, robust

    def _input(self, pixels: Tensor) -> Tensor:
        return self.opened.data.transform.normalised(pixels)

    def _right(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with torch.inference_mode(), self.opened.precision():
            logits = self.opened.module(inputs)
        right: Tensor = logits.float().mean(0).argmax(1) == labels
        return right

    def _gradient(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """See `attacks.Gradient`: of the cross entropy of the logits' mean over time, [B, C, H, W]."""
        pixels = pixels.detach().requires_grad_()
        with self.opened.precision():
            logits = self.opened.module(self._input(pixels))
            # A sum: the gradient of a sample does not depend on the size of its batch.
            loss = F.cross_entropy(logits.float().mean(0), labels, reduction="sum")
        if not loss.requires_grad:
            raise UserError("The network passes no gradient back to its input, so it cannot be attacked this way.")
        (gradient,) = torch.autograd.grad(loss, pixels)
        if not torch.isfinite(gradient).all():
            raise UserError("The gradient of the input is NaN or infinite. Try another surrogate or a greater width.")
        return gradient


def _pixels(batch: Mapping[str, Any]) -> Tensor:
    """Stored images, uint8 [B, C, H, W], as float32 of 0 to 1."""
    pixels: Tensor = batch["input"].float() / 255
    return pixels
