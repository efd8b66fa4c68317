"""The probe: what each spiking layer does while the network trains.

Every `every_n_steps` optimiser steps (before steps 0, n, 2n, ...) one record is written under `probe/`, and one at each
validation under `probe_val/`, by every logger, at the number of optimiser steps that were done before:

    probe/<layer>/<quantity>/t<k>          the layer's number at time step k
    probe/<layer>/<quantity>               over all steps: the mean, for gradient norms the norm of the whole
    probe/mean/<quantity>                  mean over layers of the numbers over all steps
    probe/spread_layers/<quantity>         their standard deviation over layers
    probe/spread_steps/<quantity>          standard deviation over time steps, averaged over layers

<layer> is the layer's name in the model, as in error messages and state dicts. <quantity> is one of

    firing_rate          share of neurons that fire
    gradient_available   share of neurons with |u - theta| < kappa / 2
    u_mean, u_std        membrane potential: mean and unbiased std
    theta, kappa         threshold and surrogate width (mean over channels, where each has its own)
    theta_std, kappa_std their std over channels; only where each has its own
    grad_spikes          norm of dL/ds, the gradient that enters the layer from above; only in training
    grad_input           norm of dL/dy, y the layer's input, the gradient that leaves it; only in training
    silent               share of neurons that never fire, in no inspected sample and step; no t<k>
    always_firing        share of neurons that always fire, in each inspected sample and step; no t<k>

and `probe/<layer>/distance` is a histogram of (u - theta) / kappa (see `diagnostics.distance_histogram`): a list of
shares in metrics.jsonl, a histogram in W&B, left out for other loggers. A neuron is one position of one channel.

What is measured. Training: the first `samples` samples of the batch, inside the pass of the whole batch that the
training step makes (the layer is computed a second time from the same input, so that the batch statistics of norms
and of methods are those of the step). Gradient norms are of the whole batch, before clipping, unscaled; a layer that is
fed a still input has no `grad_input/t<k>`, since one input serves all steps. Where trainer.accumulate cuts the batch
into parts, all this is of the first part, and gradients are those of the whole batch's loss. Validation: `samples`
samples spread over the split, in evaluation mode, of the averaged weights where trainer.ema asks for them; widths that
follow the measured potential (DS-ATGO's) follow that of these samples. With several processes: the first one's share.

Nothing that training depends on is touched: no weight, buffer or random state. The device is waited for in probed
steps, in the first step of an epoch and at its end (`layer_warnings`), and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from gradspike.config.schema import ProbeConfig
from gradspike.loggers.base import RunLogger
from gradspike.spiking_norm import LayerTrace, SpikingNorm
from gradspike.training.callbacks.steps import begins_step
from gradspike.training.probe.quantities import (
    distance_histogram,
    flat,
    gradient_norms,
    layer_statistics,
    rounded,
)
from gradspike.training.probe.warnings import LayerWarnings

LOWEST_THRESHOLD = "lowest_threshold"  # measured for the warnings alone
DISTANCE = "distance"


class Probe(L.Callback):
    """Measures every spiking layer of the module now and then, and warns; see the file's head.

    A network without spiking layers (the ReLU twin) is left alone. It has to stand before every callback that saves a
    checkpoint, so that a saved step's record is in the file by then.
    """

    def __init__(self, config: ProbeConfig) -> None:
        self.config = config
        self._layers: dict[str, SpikingNorm] = {}
        self._warnings: LayerWarnings | None = None
        self._state: dict[str, Any] | None = None
        self._handles: list[RemovableHandle] = []
        self._step = 0
        self._measured: dict[str, dict[str, Tensor]] = {}
        self._inputs: dict[str, tuple[list[Tensor], bool]] = {}

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the layers."""
        self._layers = {layer.layer_name: layer for layer in pl_module.modules() if isinstance(layer, SpikingNorm)}
        if self._layers:
            self._warnings = LayerWarnings(self._layers)
            self._warnings.start(self._state)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look on if this step is to be probed."""
        if self._warnings is None:
            return
        if batch_idx == 0:
            self._warnings.new_epoch()
        if trainer.global_step % self.config.every_n_steps == 0 and begins_step(trainer, batch_idx):
            self._step = trainer.global_step
            self._attach(self._measure_step)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the record of a probed step."""
        probed = self._detach()
        if probed:
            self._record(trainer, "probe", self._step)
        # Nearly every layer fires in the first batch; from there on its watch would be for nothing.
        if self._warnings is not None and (probed or batch_idx == 0):
            self._warnings.read()

    @override
    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the layers' inputs of this batch's part of the samples."""
        batches = int(sum(trainer.num_val_batches))
        part = (batch_idx + 1) * self.config.samples // batches - batch_idx * self.config.samples // batches
        if self._warnings is not None and part:
            self._attach(partial(self._keep_inputs, part))

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look away."""
        self._detach()

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the validation's record."""
        for name, (parts, static) in self._inputs.items():
            y = torch.cat(parts, dim=0 if static else 1)
            trace = self._layers[name].inspect(y if static else y.flatten(0, 1), static=static)
            self._measured[name] = self._statistics(trace)
        self._inputs = {}
        if self._measured:
            self._record(trainer, "probe_val", trainer.global_step)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell what went wrong in the epoch."""
        if self._warnings is not None:
            self._warnings.end_epoch(trainer.current_epoch)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the layers as they were."""
        self._leave()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the layers as they were."""
        self._leave()

    @override
    def state_dict(self) -> dict[str, Any]:
        """What the warnings know of the epoch under way."""
        return {} if self._warnings is None else self._warnings.state()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._state = state_dict or None

    def _measure_step(self, layer: SpikingNorm, args: tuple[Any, ...], kwargs: dict[str, Any], spikes: Tensor) -> None:
        y, static = _inputs(*args, **kwargs)
        trace = layer.inspect(y, static=static)
        part = LayerTrace(
            trace.u[:, : self.config.samples],
            trace.spikes[:, : self.config.samples],
            trace.thresholds,
            trace.widths,
        )
        measured = self._measured[layer.layer_name] = self._statistics(part)
        for name, tensor, steps in (
            ("grad_spikes", spikes, layer.time_steps),
            ("grad_input", y, None if static else layer.time_steps),
        ):
            if tensor.requires_grad:
                tensor.register_hook(partial(_keep_norms, measured, name, steps))  # type: ignore[no-untyped-call]

    def _keep_inputs(
        self, samples: int, layer: SpikingNorm, args: tuple[Any, ...], kwargs: dict[str, Any], _spikes: Tensor
    ) -> None:
        y, static = _inputs(*args, **kwargs)
        part = y[:samples] if static else torch.unflatten(y, 0, (layer.time_steps, -1))[:, :samples]
        # A view would keep the whole batch in memory until the validation ends.
        self._inputs.setdefault(layer.layer_name, ([], static))[0].append(part.clone())

    def _statistics(self, trace: LayerTrace) -> dict[str, Tensor]:
        statistics = layer_statistics(trace)
        if self.config.histogram_bins:
            statistics[DISTANCE] = distance_histogram(trace, self.config.histogram_bins)
        statistics[LOWEST_THRESHOLD] = trace.thresholds.min()
        return statistics

    def _record(self, trainer: L.Trainer, prefix: str, step: int) -> None:
        values, self._measured = read(self._measured), {}
        lowest = {name: quantities.pop(LOWEST_THRESHOLD) for name, quantities in values.items()}
        assert self._warnings is not None
        self._warnings.thresholds(lowest)
        self._warnings.potentials({name: quantities["u_mean"] for name, quantities in values.items()})
        histograms: dict[str, Any] = {
            f"{prefix}/{name}/{DISTANCE}": [rounded(share) for share in quantities.pop(DISTANCE)]
            for name, quantities in values.items()
            if DISTANCE in quantities
        }
        scalars = flat(values, prefix)
        for logger in cast(list[RunLogger], trainer.loggers):
            logger.log_probe(scalars, histograms, step)

    def _attach(self, hook: Any) -> None:
        self._handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in self._layers.values()]

    def _detach(self) -> bool:
        """Whether there was anything to detach."""
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()
        return bool(handles)

    def _leave(self) -> None:
        self._detach()
        self._measured, self._inputs = {}, {}
        if self._warnings is not None:
            self._warnings.stop()


def read(measured: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Any]]:
    """The numbers of all layers, floats and lists of floats, in one transfer from the device."""
    tensors = [tensor for quantities in measured.values() for tensor in quantities.values()]
    numbers = iter(torch.cat([tensor.detach().float().flatten() for tensor in tensors]).tolist())
    return {
        name: {
            quantity: [next(numbers) for _ in range(len(tensor))] if tensor.ndim else next(numbers)
            for quantity, tensor in quantities.items()
        }
        for name, quantities in measured.items()
    }


def _inputs(y: Tensor, static: bool = False) -> tuple[Tensor, bool]:
    """The arguments of a SpikingNorm's call, however they were given."""
    return y, static


def _keep_norms(measured: dict[str, Tensor], name: str, steps: int | None, gradient: Tensor) -> None:
    norms = gradient_norms(gradient, steps or 1)
    measured[name] = norms[0] if steps is None else norms
