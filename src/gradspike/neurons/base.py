"""What a neuron is: the decay factor tau of one spiking layer. All neurons share the step in `recursion`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from gradspike.errors import ConfigError
from gradspike.neurons.options import NeuronConfig
from gradspike.neurons.registry import NEURONS


class Neuron(nn.Module):
    """Base class, one instance per layer. A subclass takes its options and has `decay`.

    Class attributes:
        Config: its options, a subclass of NeuronConfig.
    """

    Config: ClassVar[type[NeuronConfig]] = NeuronConfig

    if TYPE_CHECKING:  # only for type checkers: nn.Module registers no buffer under the name of a property

        @property
        def decay(self) -> Tensor:
            """tau, a scalar in (0, 1); with gradient if it is learned."""


def build_neuron(config: NeuronConfig) -> Neuron:
    """A new neuron for one layer. Raises ConfigError if the name is unknown or not a Neuron with a scalar decay."""
    neuron = NEURONS.build(Neuron, config)
    decay = getattr(neuron, "decay", None)
    if not (isinstance(decay, Tensor) and decay.ndim == 0):
        raise ConfigError(f"neuron '{config.name}': its attribute `decay` must be a scalar tensor.")
    return neuron
