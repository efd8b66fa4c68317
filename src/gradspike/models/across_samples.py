"""A spiking layer whose potential goes on from one sample to the next, as in QKFormer's released self-attention."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from gradspike.engine.streamed import StreamPass
from gradspike.errors import ConfigError
from gradspike.norms.registry import NORMS
from gradspike.spiking_norm import LayerContext, LayerTrace, SpikingNorm

METHODS = ("fixed_sg",)
NEURONS = ("if", "lif", "plif")


class AcrossSamples(SpikingNorm):
    """Norm and neuron over T*B steps: all samples of a time step in a row, then those of the next one.

    So a sample's spikes depend on its batch. Only parts that are the same at every step can do this; raises ConfigError
    for others, also in a stream.
    """

    def __init__(self, channels: int, context: LayerContext) -> None:
        per_step = getattr(NORMS.implementation(context.norm.name), "per_step", False)
        if context.method.name not in METHODS or context.neuron.name not in NEURONS or per_step:
            raise ConfigError(
                f"model.attention_state=as_released: not with method {context.method.name}, neuron "
                f"{context.neuron.name} and norm {context.norm.name}. It needs parts that are the same at every step: "
                f"{', '.join(METHODS)}, a neuron of {', '.join(NEURONS)}, and a norm without steps. Use "
                "model.attention_state=per_sample."
            )
        super().__init__(channels, context)
        self.use_engine("eager")  # others unroll the steps, whose number changes with the batch

    @override
    def forward(self, y: Tensor, static: bool = False) -> Tensor:
        self._take_steps(len(y))
        return super().forward(y, static)

    @override
    def inspect(self, y: Tensor, static: bool = False) -> LayerTrace:
        self._take_steps(len(y))
        return super().inspect(y, static)

    def _take_steps(self, count: int) -> None:
        self.time_steps = self.method.time_steps = count

    @override
    def _advance(self, y: Tensor, step: StreamPass) -> Tensor:
        raise ConfigError(
            "model.attention_state=as_released: a stream has no samples that follow each other in a step."
        )
