"""The LightningModule: loss, metrics and optimiser around any backbone. It knows no method by name."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from gradspike.config.schema import ExperimentConfig
from gradspike.data.datamodule import DataModule
from gradspike.errors import UserError
from gradspike.spiking_norm import collect_losses, watch_first_layer
from gradspike.training.build import build_model
from gradspike.training.finite import FiniteSamples, bad_inputs, bad_network, finite_samples
from gradspike.training.firing_rate import FiringRate
from gradspike.training.losses import build_loss
from gradspike.training.metrics import Meter
from gradspike.training.mixing import build_mixing
from gradspike.training.optim import build_optimizer, parameter_groups, rate_fraction
from gradspike.training.whole_network import CompiledNetwork

STEPS_BETWEEN_CHECKS = {"cpu": 1}  # reading the loss elsewhere waits for the device, and is done every 50 steps


class Diverged(UserError):
    """Loss or weights are no longer finite."""


class SpikingClassifier(L.LightningModule):
    """A classifier whose backbone maps [B, C, H, W] images or [T, B, C, H, W] frames to logits [T, B, K].

    A batch is {"input", "label" [B], "index" [B]}. Numbers of the epoch that ends are in `epoch_metrics` from
    `on_train_epoch_end` on, those of a test in `test_metrics`. Without a validation they are those of training alone.
    A test of samples or weights that are not finite has the reason in `test_problem`, and metrics of NaN.
    Raises ConfigError for a network or an optimiser that cannot be.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__()
        self.config = config
        self.model = build_model(config)
        if config.trainer.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        parameter_groups(self.model, config.optimizer)  # a mistake in a pattern is answered before anything else starts
        self.criterion = build_loss(config.loss)
        self.mixing = build_mixing(config.loss, config.dataset.classes, config.seed)
        self._compiled = CompiledNetwork(self.model) if config.trainer.compile else None
        self.train_meter = Meter(config.dataset.classes)
        self.val_meter = Meter(config.dataset.classes)
        self.test_meter = Meter(config.dataset.classes)
        self.train_samples, self.val_samples, self.test_samples = FiniteSamples(), FiniteSamples(), FiniteSamples()
        self.firing_rate = FiringRate(self.model)
        self.epoch_metrics: dict[str, float] = {}
        self.test_metrics: dict[str, float] = {}
        self.test_problem: str | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits per time step, [T, B, K]."""
        logits: Tensor = self.model(inputs) if self._compiled is None else self._compiled(inputs)
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch, the method's own loss included.

        The accuracy of mixed samples is counted against the class that has the larger share of them.
        """
        inputs, labels = batch["input"], batch["label"]
        targets = labels
        finite = finite_samples(inputs)
        if self.mixing is not None:
            inputs, targets = self.mixing(inputs, labels, self.current_epoch, batch_idx)
            labels = targets.argmax(1)
        with collect_losses() as extra, watch_first_layer() as watch:
            logits = self(inputs)
        self.train_samples.update(finite, batch["index"], watch)
        loss: Tensor = self.criterion(logits, targets) + extra.mean()
        self.train_meter.update(loss, logits, labels)
        if (batch_idx + 1) % STEPS_BETWEEN_CHECKS.get(loss.device.type, 50) == 0:
            samples = self.train_samples
            # One transfer from the device for both.
            mean_loss, bad = torch.stack([self.train_meter.mean_loss(), samples.inputs + samples.currents]).tolist()
            if bad:
                self._check_samples(samples.own(), "train")
            self._check_loss(mean_loss, batch_idx)
            if bad:
                self._check_network(samples.own(), "train", batch_idx)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count spikes from here on."""
        self.firing_rate.start()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count one batch of the validation split."""
        self._evaluate(batch, self.val_meter, self.val_samples)

    def on_validation_epoch_end(self) -> None:
        """Close the epoch with the numbers of training and validation."""
        val = {**self.val_meter.results("val"), **self.firing_rate.stop("val")}
        # A last step that blew the weights up shows in the validation only.
        self._close_epoch(val, val["val/loss"])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close the epoch after its last batch where no validation follows."""
        if not self.trainer.enable_validation and batch_idx + 1 == self.trainer.num_training_batches:
            # Squares, which are not finite for weights (from 2e19 on) with which a loss would not be either.
            squares = [parameter.detach().float().square().sum() for parameter in self.model.parameters()]
            self._close_epoch({}, float(torch.stack(squares).sum()))

    def on_test_epoch_start(self) -> None:
        """Count spikes from here on."""
        self.firing_rate.start()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Count one batch of the split that is evaluated, whichever it is; gives the predicted classes [B]."""
        return self._evaluate(batch, self.test_meter, self.test_samples).detach().float().mean(0).argmax(1)

    def on_test_epoch_end(self) -> None:
        """Gather the numbers of the evaluation."""
        values = self.test_meter.results("test") | self.firing_rate.stop("test")
        counts = self.test_samples.results()
        split = getattr(self.trainer.datamodule, "test_split", "test")  # type: ignore[attr-defined]
        self.test_problem = bad_inputs(counts, split) or bad_network(counts, split, self.model)
        self.test_metrics = {
            key.removeprefix("test/"): math.nan if self.test_problem else value for key, value in values.items()
        }

    def configure_optimizers(self) -> Any:
        """The optimiser with its parameter groups, and the schedule of its rate."""
        optimizer = build_optimizer(self.config.optimizer, self.model, self.config.trainer.gradient_clip)
        schedule, epochs = self.config.scheduler, self.config.trainer.max_epochs
        total = epochs if schedule.interval == "epoch" else int(self.trainer.estimated_stepping_batches)
        warmup = schedule.warmup_epochs * total // epochs
        scheduler = LambdaLR(optimizer, lambda now: rate_fraction(schedule, now, warmup, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": schedule.interval}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed or evaluated run needs: configuration, random state, and the counts of an unfinished
        epoch.
        """
        checkpoint["config"] = self.config.plain()
        checkpoint["random_state"] = torch.get_rng_state()
        checkpoint["train_meter"] = self.train_meter.state()
        checkpoint["data"] = self._data_digest()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added. Raises UserError if the data are not those of the run."""
        if checkpoint.get("data") not in (None, self._data_digest()):
            raise UserError(
                f"The samples of dataset={self.config.dataset.name} are not those that the run was trained on so far: "
                "files, splits or contents differ. Point dataset.source or data_dir at its data, or start a new run."
            )
        torch.set_rng_state(checkpoint["random_state"].cpu())
        if self.trainer.is_global_zero:
            self.train_meter.restore(checkpoint["train_meter"])

    def _data_digest(self) -> str | None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return data.digest if isinstance(data, DataModule) else None

    def _evaluate(self, batch: dict[str, Tensor], meter: Meter, samples: FiniteSamples) -> Tensor:
        """Count a batch; gives its logits [T, B, K]."""
        with watch_first_layer() as watch:
            logits: Tensor = self(batch["input"])
        samples.update(finite_samples(batch["input"]), batch["index"], watch)
        meter.update(self.criterion(logits, batch["label"]), logits, batch["label"])
        return logits

    def _close_epoch(self, val: dict[str, float], judged: float) -> None:
        """Gather the epoch's numbers and hand them to the loggers as one record; `judged` must be finite."""
        train = self.train_meter.results("train")
        # On a GPU the loss is looked at only now and then: the rest of the epoch is judged here, before anything is
        # saved.
        last = int(self.trainer.num_training_batches) - 1
        counts = {"train": self.train_samples.results()}
        if val:
            counts["val"] = self.val_samples.results()
        for split, of_split in counts.items():
            self._check_samples(of_split, split)
        for split, of_split in counts.items():
            self._check_network(of_split, split, last)
        self._check_loss(train["train/loss"] + judged, last)
        schedule = self.lr_schedulers()
        assert isinstance(schedule, LambdaLR)
        # That of a parameter of which neither its method nor its group wants another.
        rate = self.config.optimizer.lr * schedule.lr_lambdas[0](schedule.last_epoch)
        self.epoch_metrics = {"epoch": self.current_epoch, "lr": rate, **train, **val}
        for logger in self.trainer.loggers:
            logger.log_metrics(self.epoch_metrics, self.global_step)

    # One process decides on these; what is lost on one is lost on all of them a step later, through the gradients.

    def _check_samples(self, counts: Tensor, split: str) -> None:
        problem = bad_inputs(counts, split) if self.trainer.is_global_zero else None
        if problem:
            raise UserError(f"{problem}. Fix the data, or the options that scale them (dataset.normalize).")

    def _check_network(self, counts: Tensor, split: str, batch_idx: int) -> None:
        problem = bad_network(counts, split, self.model) if self.trainer.is_global_zero else None
        if problem:
            raise self._diverged(problem, batch_idx)

    def _check_loss(self, loss: float, batch_idx: int) -> None:
        if not math.isfinite(loss) and self.trainer.is_global_zero:
            raise self._diverged("The loss is no longer finite", batch_idx)

    def _diverged(self, what: str, batch_idx: int) -> Diverged:
        batch = batch_idx // self.trainer.accumulate_grad_batches
        return Diverged(
            f"{what} (epoch {self.current_epoch}, batch {batch}). Try a smaller optimizer.lr (now "
            f"{self.config.optimizer.lr:g}), scheduler.warmup_epochs=1, trainer.gradient_clip=1 or "
            "trainer.precision=fp32."
        )
