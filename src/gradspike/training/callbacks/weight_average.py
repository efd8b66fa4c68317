"""An exponential moving average of the weights, which is what is validated, tested and evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import nn
from typing_extensions import override

from gradspike.training.callbacks.steps import ends_step
from gradspike.training.module import SpikingClassifier

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3

PREFIX = "model."  # of the backbone's names in the module's state


class WeightAverage(L.Callback):
    """Keeps timm's ModelEmaV3 of the backbone, updated after every optimiser step.

    Its decay after step n is min(`decay`, (n - 1) / n): the plain mean of the weights of all steps so far until that
    reaches as far back as `decay` says, so that the random weights of the start have no part in it. Buffers of floating
    point numbers (running statistics of norms, running thresholds) are averaged likewise, counters copied.

    While a validation runs the backbone holds the average, the very tensors of it exchanged, so that what looks on
    (firing rate, probe) sees the network that is evaluated. In a checkpoint `state_dict` is the average, which is what
    everybody who loads one wants, and `training_state` are the weights that training goes on with. Has to stand before
    every callback that saves one.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._average: ModelEmaV3 | None = None
        self._loaded: dict[str, Any] | None = None
        self._exchanged = False

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Give the module its training weights; Lightning has just loaded the average into it."""
        self._loaded = checkpoint["state_dict"]
        pl_module.load_state_dict(checkpoint["training_state"])

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the average; the module is on its device by now."""
        from timm.utils.model_ema import ModelEmaV3  # takes a second, which runs without an average need not wait

        model = _backbone(pl_module)
        self._average = ModelEmaV3(model, decay=self.decay, use_warmup=True, warmup_gamma=1.0, warmup_power=1.0)
        if self._loaded is not None:
            loaded, self._loaded = self._loaded, None
            own = {name: value for name, value in loaded.items() if name.startswith(PREFIX)}
            self._average.module.load_state_dict({name.removeprefix(PREFIX): value for name, value in own.items()})

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the weights."""
        if ends_step(trainer, batch_idx):
            assert self._average is not None
            self._average.update(_backbone(pl_module), step=trainer.global_step)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in place."""
        self._exchange(pl_module)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the training weights back."""
        self._exchange(pl_module)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the training weights back where a validation was under way; a checkpoint may follow."""
        if self._exchanged:
            self._exchange(pl_module)

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save both."""
        assert self._average is not None
        averaged = {PREFIX + name: value for name, value in self._average.module.state_dict().items()}
        checkpoint["training_state"] = checkpoint["state_dict"]
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **averaged}

    @torch.no_grad()
    def _exchange(self, pl_module: L.LightningModule) -> None:
        assert self._average is not None
        self._exchanged = not self._exchanged
        theirs = self._average.module.state_dict()
        for name, ours in _backbone(pl_module).state_dict().items():
            kept = ours.clone()
            ours.copy_(theirs[name])
            theirs[name].copy_(kept)


def _backbone(pl_module: L.LightningModule) -> nn.Module:
    assert isinstance(pl_module, SpikingClassifier)
    return pl_module.model
