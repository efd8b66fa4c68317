"""The LightningModule: loss, metrics and optimiser of any backbone."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from gradspike import ranks
from gradspike.collected import collect_losses, watch_first_layer
from gradspike.config.schema import ExperimentConfig
from gradspike.data.augment.counter_random import mix_integers
from gradspike.data.datamodule import DataModule
from gradspike.errors import ConfigError, UserError
from gradspike.methods.base import Method, set_progress
from gradspike.packed_spikes import packing
from gradspike.training.build import build_model, require_data_of
from gradspike.training.checkpoint import AtomicFiles
from gradspike.training.finite import FiniteSamples, bad_inputs, bad_network, bad_weights, finite_samples
from gradspike.training.firing_rate import FiringRate
from gradspike.training.graphed import GraphedNetwork
from gradspike.training.layers import layer_numbers
from gradspike.training.losses import build_loss, check_loss
from gradspike.training.metrics import Meter
from gradspike.training.mixing import build_mixing
from gradspike.training.optim import build_optimizer, parameter_groups, rate_of
from gradspike.training.parts import count_in_parts, summed
from gradspike.training.random_state import random_state, restore_random_state
from gradspike.training.sltt import with_gradient_of_some_steps
from gradspike.training.whole_network import CompiledNetwork

STEPS_BETWEEN_CHECKS = {"cpu": 1}  # 50 on other devices, where reading the loss waits


class Diverged(UserError):
    """Loss or weights are NaN or infinite."""


class SpikingClassifier(L.LightningModule):
    """A classifier whose backbone maps [B, C, H, W] images or [T, B, C, H, W] frames to logits [T, B, K].

    A batch is {"input", "label" [B], "index" [B]}. `epoch_metrics` contains the metrics of an epoch from
    `on_train_epoch_end` on; without validation, only those of training. `test_metrics` contains the metrics of a test.
    If samples or weights of a test are not finite, they are NaN and `test_problem` gives the reason.
    `engine` is that of the layers; None for that of the configuration. Raises ConfigError for an impossible network or
    optimiser.
    """

    def __init__(self, config: ExperimentConfig, engine: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.model = build_model(config, engine)
        if config.trainer.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self._layers = None if config.optimizer.layer_decay == 1 else layer_numbers(config)
        parameter_groups(self.model, config.optimizer, self._layers)  # reports a wrong pattern before training starts
        self.criterion = build_loss(config.loss)
        check_loss(self.criterion, config.loss, config.dataset.classes, config.time_steps)
        self.mixing = build_mixing(config.loss, config.dataset.classes, config.seed)
        self.sltt_steps = None if config.model.activation == "relu" else config.neuron.sltt_steps
        compiled = CompiledNetwork(self.model) if config.trainer.compile else None
        graphs = config.trainer.cuda_graphs
        self._steps = GraphedNetwork(self.model, compiled or self.model) if graphs else compiled
        self.train_meter = Meter(config.dataset.classes)
        self.val_meter = Meter(config.dataset.classes)
        self.test_meter = Meter(config.dataset.classes)
        self.train_samples, self.val_samples, self.test_samples = FiniteSamples(), FiniteSamples(), FiniteSamples()
        self.firing_rate = FiringRate(self.model)
        self._announced = -1
        self._extended = False
        self.epoch_metrics: dict[str, float] = {}
        self.test_metrics: dict[str, float] = {}
        self.test_problem: str | None = None

    @override
    def setup(self, stage: str) -> None:
        """Give each rank random numbers of its own, for dropout and Poisson spikes; weights exist already.

        Raises ConfigError if a trainer of the user's own trains otherwise than the configuration says.
        """
        if stage != "fit":
            return
        if not isinstance(self.trainer.strategy.checkpoint_io, AtomicFiles):  # those of gradspike have it
            self._check_trainer()
        if self.trainer.global_rank > 0:
            torch.manual_seed(mix_integers(self.config.seed, self.trainer.global_rank))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Logits per time step, [T, B, K]."""
        logits: Tensor = self.model(inputs) if self._steps is None else self._steps(inputs)
        return logits

    @override
    def on_train_start(self) -> None:
        """Give a run with more epochs than its checkpoint had the rates of its new schedule at once."""
        schedule = self.lr_schedulers()
        if self._extended and isinstance(schedule, LambdaLR):
            groups = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
            for group, base, fraction in groups:
                group["lr"] = base * fraction(schedule.last_epoch)

    @override
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, including the method's own loss.

        For a mixed sample, predicting the class with the larger share counts as correct.
        """
        if self._announced != self.current_epoch:  # also in the first step of a run that resumes within an epoch
            set_progress(self.model, self.current_epoch / self.config.trainer.max_epochs)
            self._announced = self.current_epoch
        inputs, labels = batch["input"], batch["label"]
        targets = labels
        finite = finite_samples(inputs)
        if self.mixing is not None:
            inputs, targets = self.mixing(inputs, labels, self.current_epoch, batch_idx)
            labels = targets.argmax(1)
        with collect_losses() as extra, watch_first_layer() as watch, packing(self.config.trainer.pack_spikes):
            logits = self(inputs)
        if self.sltt_steps is not None:
            step = batch_idx // self.trainer.accumulate_grad_batches
            logits = with_gradient_of_some_steps(logits, self.sltt_steps, self.config.seed, self.current_epoch, step)
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

    @override
    def on_validation_epoch_start(self) -> None:
        self.firing_rate.start()

    @override
    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.val_meter, self.val_samples)

    @override
    def on_validation_epoch_end(self) -> None:
        val = {**self.val_meter.results("val"), **self.firing_rate.stop("val")}
        if self.trainer.sanity_checking:  # Lightning's trial before the first epoch
            self.val_samples.results()
            return
        # Only the validation shows that the last step made the weights infinite.
        self._close_epoch(val, val["val/loss"])

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.trainer.enable_validation and batch_idx + 1 == self.trainer.num_training_batches:
            # Squares are infinite for weights above 2e19, which would make the loss infinite too.
            squares = [parameter.detach().float().square().sum() for parameter in self.model.parameters()]
            self._close_epoch({}, float(torch.stack(squares).sum()))

    @override
    def on_test_epoch_start(self) -> None:
        self.firing_rate.start()

    @override
    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The predicted classes [B] of a batch of the evaluated split."""
        return self._evaluate(batch, self.test_meter, self.test_samples).detach().float().mean(0).argmax(1)

    @override
    def on_test_epoch_end(self) -> None:
        values = self.test_meter.results("test") | self.firing_rate.stop("test")
        counts = self.test_samples.results()
        split = getattr(self.trainer.datamodule, "test_split", "test")  # type: ignore[attr-defined]
        self.test_problem = bad_inputs(counts, split) or bad_network(counts, split, self.model)
        self.test_metrics = {
            key.removeprefix("test/"): math.nan if self.test_problem else value for key, value in values.items()
        }

    @override
    def configure_optimizers(self) -> Any:
        clip = self.config.trainer.gradient_clip
        optimizer = build_optimizer(self.config.optimizer, self.model, clip, self._layers)
        schedule, epochs = self.config.scheduler, self.config.trainer.max_epochs
        total = epochs if schedule.interval == "epoch" else int(self.trainer.estimated_stepping_batches)
        warmup = schedule.warmup_epochs * total // epochs
        scheduler = LambdaLR(optimizer, [rate_of(group, schedule, warmup, total) for group in optimizer.param_groups])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": schedule.interval}}

    def check_weights(self, batch_idx: int) -> None:
        """Raise Diverged, on the first process, if the network is not finite."""
        problem = bad_weights(self.model) if self.trainer.is_global_zero else None
        if problem:
            raise self._diverged(problem, batch_idx)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what resuming, evaluating and predicting need: configuration, random state, metrics of an unfinished
        epoch, and statistics and class names of the data.
        """
        checkpoint["config"] = self.config.plain()
        own = {"random_state": random_state(self.device), "train_meter": self.train_meter.state()}
        checkpoint["ranks"] = ranks.collected(own)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        known = isinstance(data, DataModule)
        checkpoint["data"] = data.digest if known else None
        checkpoint["input"] = data.input_facts() if known else None

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added, on any number of ranks and parts of a batch.

        Raises UserError if the data are not those of the run.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, DataModule):
            require_data_of(checkpoint, data)
        self._extended = checkpoint["config"]["trainer"]["max_epochs"] != self.config.trainer.max_epochs
        count_in_parts(checkpoint, self.config.trainer.accumulate)
        states, rank = checkpoint["ranks"], self.trainer.global_rank
        if len(states) == self.trainer.world_size:
            self.train_meter.restore(states[rank]["train_meter"])
        elif rank == 0:
            self.train_meter.restore(summed([state["train_meter"] for state in states]))
        if rank < len(states):
            restore_random_state(states[rank]["random_state"], self.device)
        else:
            torch.manual_seed(mix_integers(self.config.seed, rank, checkpoint["global_step"]))

    def _check_trainer(self) -> None:
        options, trainer = self.config.trainer, self.trainer
        for key, argument, ours, theirs in (
            ("max_epochs", "max_epochs", options.max_epochs, trainer.max_epochs),
            ("accumulate", "accumulate_grad_batches", options.accumulate, trainer.accumulate_grad_batches),
            ("gradient_clip", "gradient_clip_val", options.gradient_clip, trainer.gradient_clip_val),
        ):
            if ours != theirs:
                raise ConfigError(
                    f"The Trainer has {argument}={theirs}, but the configuration has trainer.{key}={ours}. Batches, "
                    "learning rates and optimiser follow the configuration, so both must be equal."
                )
        methods = [module for module in self.model.modules() if isinstance(module, Method)]
        present = {type(callback).__name__ for callback in trainer.callbacks}  # type: ignore[attr-defined]
        for needed, file, name in (
            (any(one.differences is not None for one in methods), "finite_differences", "FiniteDifferences()"),
            (options.ema is not None, "weight_average", f"WeightAverage({options.ema})"),
        ):
            if needed and name.partition("(")[0] not in present:
                raise ConfigError(
                    f"The configuration needs the callback gradspike.training.callbacks.{file}.{name}. Add it to the "
                    "Trainer's callbacks."
                )

    def _evaluate(self, batch: dict[str, Tensor], meter: Meter, samples: FiniteSamples) -> Tensor:
        """Add a batch to the counts. Returns its logits [T, B, K]."""
        if not len(batch["label"]):  # this rank's share is smaller than the others'
            return torch.zeros(1, 0, self.config.dataset.classes, device=self.device)
        with watch_first_layer() as watch:
            logits: Tensor = self(batch["input"])
        samples.update(finite_samples(batch["input"]), batch["index"], watch)
        meter.update(self.criterion(logits, batch["label"]), logits, batch["label"])
        return logits

    def _close_epoch(self, val: dict[str, float], judged: float) -> None:
        """Log the epoch's metrics as one record. Raises Diverged unless `judged` and the training loss are finite."""
        train = self.train_meter.results("train")
        # On a GPU the loss is checked every 50 steps. Check the last steps of the epoch before anything is saved.
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
        # The rate of parameters without a multiplier from their method or group.
        rate = self.config.optimizer.lr * schedule.lr_lambdas[0](schedule.last_epoch)
        self.epoch_metrics = {"epoch": self.current_epoch, "lr": rate, **train, **val}
        for logger in self.trainer.loggers:
            logger.log_metrics(self.epoch_metrics, self.global_step)

    # Only the first process checks: gradients carry a NaN of any rank to all ranks within a step.

    def _check_samples(self, counts: Tensor, split: str) -> None:
        problem = bad_inputs(counts, split) if self.trainer.is_global_zero else None
        if problem:
            raise UserError(f"{problem}. Fix the data, or the options that scale it (dataset.normalize) in a new run.")

    def _check_network(self, counts: Tensor, split: str, batch_idx: int) -> None:
        problem = bad_network(counts, split, self.model) if self.trainer.is_global_zero else None
        if problem:
            raise self._diverged(problem, batch_idx)

    def _check_loss(self, loss: float, batch_idx: int) -> None:
        if not math.isfinite(loss) and self.trainer.is_global_zero:
            raise self._diverged("The loss became NaN or infinite", batch_idx)

    def _diverged(self, what: str, batch_idx: int) -> Diverged:
        batch = batch_idx // self.trainer.accumulate_grad_batches + 1
        return Diverged(
            f"{what} (epoch {self.current_epoch + 1}, batch {batch}). Try a smaller optimizer.lr (now "
            f"{self.config.optimizer.lr:g}), scheduler.warmup_epochs=1, trainer.gradient_clip=1 or "
            "trainer.precision=fp32 in a new run."
        )
