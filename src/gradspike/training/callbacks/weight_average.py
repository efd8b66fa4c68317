"""An exponential moving average of the weights, which replaces them in validation, test and evaluation."""

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

PREFIX = "model."  # of the backbone's parameters in the module's state


class WeightAverage(L.Callback):
    """Keeps timm's ModelEmaV3 of the backbone, updated after every optimiser step.

    The decay after step n is min(`decay`, (n - 1) / n): a plain mean of all steps until it covers as many steps as
    `decay` does, so the initial random weights do not count. Floating-point buffers (running statistics of norms,
    running thresholds) are averaged in the same way; counters are copied.

    During validation the backbone's tensors hold the average, so firing rate and probe measure the evaluated network.
    In a checkpoint `state_dict` is the average and `training_state` holds the weights that a resumed run continues
    with. Must come before every callback that saves checkpoints.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._average: ModelEmaV3 | None = None
        self._loaded: dict[str, Any] | None = None
        self._exchanged = False

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load the training weights, because Lightning has just loaded the average."""
        self._loaded = checkpoint["state_dict"]
        pl_module.load_state_dict(checkpoint["training_state"])

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from timm.utils.model_ema import ModelEmaV3  # takes a second to import

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
        if ends_step(trainer, batch_idx):
            assert self._average is not None
            self._average.update(_backbone(pl_module), step=trainer.global_step)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._exchange(pl_module)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._exchange(pl_module)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the training weights if validation was interrupted, because a checkpoint may follow."""
        if self._exchanged:
            self._exchange(pl_module)

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
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
