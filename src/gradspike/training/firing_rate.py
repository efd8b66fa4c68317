"""The network's mean firing rate during an evaluation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradspike.spiking_norm import SpikingNorm
from gradspike.training.metrics import WeightedMean


class FiringRate(nn.Module):
    """Mean over layers of the share of neurons that fire in a step, counted between `start` and `stop`.

    Sums stay on the device; nothing is read before `stop`. A network without spiking layers (the ReLU twin) has no
    rate.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # A plain list: the layers belong to the backbone, not to what watches them.
        self._layers = [layer for layer in model.modules() if isinstance(layer, SpikingNorm)]
        self._handles: list[RemovableHandle] = []
        self._rates = [WeightedMean() for _ in self._layers]
        self.rates = nn.ModuleList(self._rates)  # registered, so that they follow the device

    def start(self) -> None:
        """Begin to count."""
        self._remove_hooks()
        for layer, rate in zip(self._layers, self._rates, strict=True):
            rate.reset()

            def count(_layer: nn.Module, _inputs: object, spikes: Tensor, rate: WeightedMean = rate) -> None:
                rate.update(spikes.float().mean(), len(spikes))

            self._handles.append(layer.register_forward_hook(count))

    def stop(self, split: str) -> dict[str, float]:
        """End the count: {"<split>/firing_rate": rate}, or nothing where no layer spikes."""
        self._remove_hooks()
        if not self._layers:
            return {}
        return {f"{split}/firing_rate": sum(float(rate.compute()) for rate in self._rates) / len(self._rates)}

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
