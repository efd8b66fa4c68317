"""The probe: measures each spiking layer during training.

Writes a record under `probe/` every `every_n_steps` optimiser steps (before steps 0, n, 2n, ...) and under `probe_val/`
at each validation. All loggers get it, at the number of optimiser steps done so far:

    probe/<layer>/<quantity>/t<k>          the layer's value at time step k
    probe/<layer>/<quantity>               the mean over time steps; for gradient norms, the norm of the whole gradient
    probe/mean/<quantity>                  mean over layers of `probe/<layer>/<quantity>`
    probe/spread_layers/<quantity>         standard deviation over layers of `probe/<layer>/<quantity>`
    probe/spread_steps/<quantity>          standard deviation over time steps, averaged over layers

<layer> is the layer's name in the model, as in error messages and state dicts. <quantity> is one of

    firing_rate          fraction of neurons that fire; of neurons that emit counts, the mean count
    gradient_available   fraction of neurons with |u - theta| < kappa / 2
    u_mean, u_std        membrane potential: mean and unbiased standard deviation
    theta, kappa         threshold and surrogate width; the mean over channels if each has its own
    theta_std, kappa_std standard deviation over channels (or neurons), only if each has its own
    grad_spikes          norm of dL/ds, the gradient that enters the layer from above; only in training
    grad_input           norm of dL/dy, the gradient with respect to the layer's input y; only in training
    silent               fraction of neurons that fire in no measured sample and time step; no t<k>
    always_firing        fraction of neurons that fire in every measured sample and time step; no t<k>
    ...                  what the method names (`Method.quantities`): analog_share (asgl), temperature (dspike and
                         im_loss), current_mean (with a loss on the current, over all elements and steps); no t<k>

`probe/<layer>/distance` is a histogram of (u - theta) / kappa (see `quantities.distance_histogram`): a list of
fractions in metrics.jsonl, a histogram in W&B, nothing in other loggers. A neuron is one position of one channel.

In training, the probe measures the first `samples` samples of the batch. It computes the layer a second time from the
input of the whole batch, so norms and methods use the batch statistics of the step. Gradient norms are those of the
whole batch, before clipping and unscaled. A layer with a static input has no `grad_input/t<k>`, because all time steps
share the input. If trainer.accumulate splits the batch, the probe measures the first part; gradients are still those of
the whole batch's loss.

In validation, the probe measures `samples` samples from all over the split, in evaluation mode, and with the averaged
weights if trainer.ema is set. Widths that follow the measured potential (DS-ATGO's) follow that of these samples. With
several processes, the probe measures samples of the first one.

The probe changes nothing that training depends on: no weight, buffer or random state. It waits for the device only in
probed steps, in the first step of an epoch and at the end of an epoch (`LayerWarnings`).
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
from gradspike.training.callbacks.steps import begins_step, share_of
from gradspike.training.probe.quantities import (
    distance_histogram,
    flat,
    gradient_norms,
    layer_statistics,
    rounded,
)
from gradspike.training.probe.warnings import LayerWarnings

LOWEST_THRESHOLD = "lowest_threshold"  # only for the warnings
NOT_FINITE = "not_finite"  # likewise
DISTANCE = "distance"


class Probe(L.Callback):
    """Measures the module's spiking layers and warns about them, as the module's docstring describes.

    Does nothing for a network without spiking layers (the ReLU twin). Must come before all callbacks that save a
    checkpoint, so that the record of a saved step is in metrics.jsonl by then.
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
        self._layers = {layer.layer_name: layer for layer in pl_module.modules() if isinstance(layer, SpikingNorm)}
        if self._layers:
            self._warnings = LayerWarnings(self._layers)
            self._warnings.start(self._state)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
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
        probed = self._detach()
        if probed:
            self._record(trainer, "probe", self._step)
        # Nearly every layer fires in the first batch, so stop watching it after that batch.
        if self._warnings is not None and (probed or batch_idx == 0):
            self._warnings.read()

    @override
    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        part = share_of(self.config.samples, batch_idx, int(sum(trainer.num_val_batches)))
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
        self._detach()

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, (parts, static) in self._inputs.items():
            y = torch.cat(parts, dim=0 if static else 1)
            trace = self._layers[name].inspect(y if static else y.flatten(0, 1), static=static)
            self._measured[name] = self._statistics(trace)
        self._inputs = {}
        if self._measured:
            self._record(trainer, "probe_val", trainer.global_step)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._warnings is not None:
            self._warnings.end_epoch(trainer.current_epoch)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._leave()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._leave()

    @override
    def state_dict(self) -> dict[str, Any]:
        """The state of the warnings within the current epoch."""
        return {} if self._warnings is None else self._warnings.state()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict or None

    def _measure_step(self, layer: SpikingNorm, args: tuple[Any, ...], kwargs: dict[str, Any], spikes: Tensor) -> None:
        y, static = _inputs(*args, **kwargs)
        trace = layer.inspect(y, static=static)
        part = LayerTrace(
            trace.u[:, : self.config.samples],
            trace.spikes[:, : self.config.samples],
            trace.thresholds,
            trace.widths,
            trace.own,
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
        # A view would keep the whole batch in memory until validation ends.
        self._inputs.setdefault(layer.layer_name, ([], static))[0].append(part.clone())

    def _statistics(self, trace: LayerTrace) -> dict[str, Tensor]:
        statistics = layer_statistics(trace)
        if self.config.histogram_bins:
            statistics[DISTANCE] = distance_histogram(trace, self.config.histogram_bins)
        statistics[LOWEST_THRESHOLD] = trace.thresholds.min()
        finite = trace.u.isfinite().flatten(2).all(2).all(0)
        statistics[NOT_FINITE] = torch.stack([(~finite).sum(), torch.ones_like(finite).sum()])
        return statistics

    def _record(self, trainer: L.Trainer, prefix: str, step: int) -> None:
        values, self._measured = read(self._measured), {}
        lowest = {name: quantities.pop(LOWEST_THRESHOLD) for name, quantities in values.items()}
        assert self._warnings is not None
        self._warnings.thresholds(lowest)
        self._warnings.potentials({name: quantities.pop(NOT_FINITE) for name, quantities in values.items()})
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
        """Remove the hooks. Returns whether there were any."""
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
    """The values of all layers as floats and lists of floats, in one transfer from the device."""
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
    """The arguments of a SpikingNorm's call, whether positional or by keyword."""
    return y, static


def _keep_norms(measured: dict[str, Tensor], name: str, steps: int | None, gradient: Tensor) -> None:
    norms = gradient_norms(gradient, steps or 1)
    measured[name] = norms[0] if steps is None else norms
