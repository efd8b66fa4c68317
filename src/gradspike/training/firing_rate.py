"""The mean firing rate of the network during an evaluation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradspike.spiking_norm import SpikingNorm
from gradspike.training.metrics import WeightedMean


class FiringRate(nn.Module):
    """The fraction of neurons that fire per time step between `start` and `stop`, averaged over layers.

    Reads nothing from the device before `stop`. Networks without spiking layers (the ReLU twin) have no firing rate.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # Plain lists, so that the layers do not become submodules.
        named = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, SpikingNorm)]
        self._names = [name for name, _ in named]
        self._layers = [layer for _, layer in named]
        self._handles: list[RemovableHandle] = []
        self._rates = [WeightedMean() for _ in self._layers]
        self.rates = nn.ModuleList(self._rates)  # registered, so that they move with the module

    def start(self) -> None:
        """Start counting."""
        self._remove_hooks()
        for layer, rate in zip(self._layers, self._rates, strict=True):
            rate.reset()

            def count(layer: SpikingNorm, _inputs: object, spikes: Tensor, rate: WeightedMean = rate) -> None:
                fired = spikes != 0 if layer.method.scales_spikes else spikes
                rate.update(fired.float().mean(), len(spikes))

            self._handles.append(layer.register_forward_hook(count))

    def stop(self, split: str) -> dict[str, float]:
        """Stop counting. Returns {"<split>/firing_rate": rate}, or nothing without spiking layers."""
        self._remove_hooks()
        if not self._layers:
            return {}
        return {f"{split}/firing_rate": sum(self.by_layer().values()) / len(self._rates)}

    def by_layer(self) -> dict[str, float]:
        """The rate of each layer since the last `start`, by its name in the model."""
        return {name: float(rate.compute()) for name, rate in zip(self._names, self._rates, strict=True)}

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
