"""Warns about faults inside a layer that do not stop training, once per layer, kind and epoch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradspike.methods.options import MIN_WIDTH
from gradspike.spiking_norm import SpikingNorm

log = logging.getLogger("gradspike")

SILENT = (
    "did not fire in epoch {epoch}, so later layers learn nothing from it. Try a larger norm.alpha (of norm=tdbn), a "
    "lower method.v_threshold, a smaller optimizer.lr or optimizer.weight_decay, or a larger surrogate width."
)
CLAMPED = (
    f"had a surrogate width below {MIN_WIDTH:g}, so that value is used; almost no neuron gets a gradient. Try a "
    "smaller optimizer.lr or optimizer.weight_decay, optimizer.decay_all=false, or a method whose width does not "
    "follow the norm's gain."
)
NEGATIVE = (
    "has a negative threshold ({lowest:.3g}): its neurons fire without input. Try a smaller optimizer.lr, or "
    "optimizer.decay_all=true, which pulls the norm's bias back to 0."
)

NOT_FINITE = (
    "has a membrane potential that is NaN or infinite in {bad:,} of {measured:,} measured samples. NaN never reaches "
    "the threshold and gets no gradient. Look for such values in the data, or try a smaller optimizer.lr."
)


class LayerWarnings:
    """Watches for layers that never fire in an epoch of training, clamped widths, negative thresholds and potentials
    that are not finite.

    Whether a layer has fired is recorded on its device until `read` finds that it has. With several processes, a layer
    is silent if it is silent on all of them.
    """

    def __init__(self, layers: Mapping[str, SpikingNorm]) -> None:
        self._layers = layers
        device = next(iter(layers.values())).method.width_clamps.device
        self._fired = torch.zeros(len(layers), dtype=torch.int32, device=device)
        self._clamps = self._clamp_counts()
        self._told: set[tuple[str, str]] = set()
        self._handles: dict[str, RemovableHandle] = {}

    def start(self, state: Mapping[str, Any] | None = None) -> None:
        """Start watching; with `state`, continue in the middle of its epoch."""
        if state is not None:
            fired = [name in state["fired"] for name in self._layers]
            self._fired.copy_(torch.tensor(fired))
            self._told = {(name, kind) for name, kind in state["told"]}
        self._watch(self._layers if state is None else state.get("watched", self._layers))

    def new_epoch(self) -> None:
        """Reset which layers have fired and which warnings were given."""
        self._fired.zero_()
        self._told.clear()
        self._watch(self._layers)

    def read(self) -> None:
        """Stop watching layers that have fired, and warn about clamped widths. Waits for the device."""
        counts = self._clamp_counts()
        # One transfer for both.
        fired, clamped = torch.stack([self._fired, (counts > self._clamps).to(self._fired.dtype)]).tolist()
        self._clamps = counts
        for name, has_fired, was_clamped in zip(self._layers, fired, clamped, strict=True):
            if has_fired and name in self._handles:
                self._handles.pop(name).remove()
            if was_clamped:
                self._tell(name, "clamped", CLAMPED)

    def thresholds(self, lowest: Mapping[str, float]) -> None:
        """Warn about layers whose lowest threshold is negative."""
        for name, value in lowest.items():
            if value < 0:
                self._tell(name, "negative", NEGATIVE.format(lowest=value))

    def potentials(self, samples: Mapping[str, tuple[float, float]]) -> None:
        """Warn about layers whose potential is not finite in some sample.

        samples: by layer, the number of these samples, and of all that were measured.
        """
        for name, (bad, measured) in samples.items():
            if bad:
                self._tell(name, "not finite", NOT_FINITE.format(bad=int(bad), measured=int(measured)))

    def end_epoch(self, epoch: int) -> None:
        """Warn about layers that never fired in the training steps of `epoch` (counted from 0)."""
        self.read()
        fired = self._fired_names()
        for name in self._layers:
            if name not in fired:
                self._tell(name, "silent", SILENT.format(epoch=epoch + 1))

    def stop(self) -> None:
        """Remove all hooks."""
        for handle in self._handles.values():
            handle.remove()
        self._handles = {}

    def state(self) -> dict[str, Any]:
        """What a run needs to resume within an epoch, as plain containers. All processes must call it."""
        return {
            "fired": sorted(self._fired_names()),
            "told": [list(pair) for pair in sorted(self._told)],
            "watched": sorted(self._handles),
        }

    def _watch(self, names: Collection[str]) -> None:
        self.stop()
        for index, (name, layer) in enumerate(self._layers.items()):
            if name not in names:
                continue
            self._handles[name] = layer.register_forward_hook(partial(self._note, self._fired[index]))

    @staticmethod
    def _note(fired: Tensor, layer: nn.Module, _inputs: object, spikes: Tensor) -> None:
        if layer.training:
            fired |= spikes.any()

    def _fired_names(self) -> set[str]:
        fired = self._fired
        if dist.is_available() and dist.is_initialized():
            fired = fired.clone()
            dist.all_reduce(fired, op=dist.ReduceOp.MAX)
        return {name for name, has_fired in zip(self._layers, fired.tolist(), strict=True) if has_fired}

    def _clamp_counts(self) -> Tensor:
        return torch.stack([layer.method.width_clamps for layer in self._layers.values()])

    def _tell(self, name: str, kind: str, message: str) -> None:
        if (name, kind) not in self._told:
            self._told.add((name, kind))
            log.warning("layer '%s' %s", name, message)
