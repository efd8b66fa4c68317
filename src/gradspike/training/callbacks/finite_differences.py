"""Chooses a value of a method, such as Dspike's temperature, by finite differences of the loss.

At the start of an epoch, with the weights w of the network's first layer and the loss L of the first batch (Li et al.,
NeurIPS 2021, Algorithm 1):

    d[i] = (L(w + size e[i]) - L(w - size e[i])) / (2 size)         for each compared weight i
    g(c) = dL/dw by the surrogate of the candidate c
    the new value is the candidate with the largest cosine similarity of d and g(c)

This takes two forward passes for each weight, and a backward pass for each candidate. The passes are in training mode
and in float32. They change nothing else: no weight, buffer or random state.

Several processes use their shares of the batch and average losses and gradients, as training does, so all choose the
same value.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gradspike import ranks
from gradspike.collected import collect_losses
from gradspike.data.augment.counter_random import mix_integers
from gradspike.methods.base import Method
from gradspike.training.module import SpikingClassifier
from gradspike.training.random_state import random_state, restore_random_state

log = logging.getLogger(__name__)


class FiniteDifferences(L.Callback):
    """Chooses before the first step of an epoch. Must come before all callbacks that watch the network.

    The value is in the methods' buffers, so a run that resumes within an epoch continues with it.
    """

    @staticmethod
    def needed(model: nn.Module) -> bool:
        """Whether a method of the model asks for it."""
        return bool(_methods(model))

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            assert isinstance(pl_module, SpikingClassifier)
            choose(pl_module, batch["input"], batch["label"], trainer.current_epoch)


def choose(module: SpikingClassifier, inputs: Tensor, labels: Tensor, epoch: int) -> None:
    """Set the value of all methods that ask for it in this epoch, from the network's loss of a batch."""
    methods = _methods(module.model)
    how = methods[0].differences if methods else None
    if how is None or epoch % how.every:
        return
    weight = _first_weight(module.model)
    compared = torch.arange(weight.numel())
    if how.weights is not None and how.weights < weight.numel():
        generator = torch.Generator().manual_seed(mix_integers(module.config.seed, epoch))
        compared = torch.randperm(weight.numel(), generator=generator)[: how.weights].sort().values

    def loss() -> Tensor:
        restore_random_state(state, inputs.device)  # the same dropout and noise in all passes
        with collect_losses() as extra:
            logits = module.model(inputs)
        total: Tensor = module.criterion(logits, labels) + extra.mean()
        return total

    state = random_state(inputs.device)
    candidates = methods[0].candidates()
    with _unchanged(module.model, state, inputs.device):
        gradients = []
        for candidate in candidates:
            _take(methods, candidate)
            gradients.append(torch.autograd.grad(loss(), weight)[0].flatten()[compared.to(weight.device)])
        with torch.no_grad():
            differences = torch.stack([_difference(loss, weight, int(i), how.size) for i in compared])
    *gradients, differences = _averaged(*gradients, differences)
    similarities = [F.cosine_similarity(gradient, differences, dim=0) for gradient in gradients]
    found = torch.stack(similarities).nan_to_num(-1.0).tolist()
    best = candidates[found.index(max(found))] if differences.any() else candidates[0]
    _take(methods, best)
    shown = ", ".join(f"{value:.3f} for {candidate:g}" for candidate, value in zip(candidates, found, strict=True))
    log.info("epoch %d: %g by %d finite differences (cosine similarity %s)", epoch + 1, best, len(compared), shown)


def _methods(model: nn.Module) -> list[Method]:
    return [one for one in model.modules() if isinstance(one, Method) and one.differences is not None]


def _take(methods: list[Method], candidate: float) -> None:
    for method in methods:
        method.take(candidate)


def _first_weight(model: nn.Module) -> nn.Parameter:
    """The weights of the first convolution or linear layer."""
    return next(parameter for parameter in model.parameters() if parameter.ndim > 1)


def _difference(loss: Callable[[], Tensor], weight: nn.Parameter, place: int, size: float) -> Tensor:
    """(L(w + size) - L(w - size)) / (2 size) for the weight at a place of the flattened weights."""
    at = tuple(int(index) for index in torch.unravel_index(torch.tensor(place), weight.shape))
    before = weight[at].clone()
    losses = []
    for shift in (size, -size):
        weight[at] = before + shift
        losses.append(loss())
    weight[at] = before
    return (losses[0] - losses[1]) / (2 * size)


def _averaged(*values: Tensor) -> list[Tensor]:
    """The means over all processes."""
    if ranks.world_size() == 1:
        return list(values)
    return [value / ranks.world_size() for value in ranks.summed(*values)]


@contextmanager
def _unchanged(model: nn.Module, state: dict[str, Tensor], device: torch.device) -> Iterator[None]:
    """Restore buffers and random state at the end."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        restore_random_state(state, device)
