"""I-LIF: emits the integer number of spikes that the potential is worth (Luo et al., ECCV 2024).

As in SpikingJelly 2.0 (ILIFNode):

    u[t] = tau w[t-1] + x[t]     c = round(clip(u / theta, 0, D))     w = u - c theta

Rounding is half to even. In the backward pass the rounding counts as the identity.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from gradspike.neurons.base import State, Values
from gradspike.neurons.constant import ConstantDecay
from gradspike.neurons.options import NeuronConfig
from gradspike.surrogate import Surrogate


class IlifConfig(NeuronConfig):
    """`max_count` is D, the most spikes of one step. `decay` is tau = 1 - 1 / tau_m."""

    fires: Literal["at_threshold"] = "at_threshold"
    decay: float = Field(default=0.25, gt=0, lt=1)
    max_count: int = Field(default=4, ge=1)


class ILIF(ConstantDecay):
    """Soft reset. Its gradient is 1 / theta for 0 <= u <= D theta, whatever the method's surrogate."""

    Config: ClassVar[type[IlifConfig]] = IlifConfig
    has_own_gradient: ClassVar[bool] = True

    @staticmethod
    @override
    def fire(u: Tensor, theta: Tensor, kappa: Tensor, surrogate: Surrogate, p: Values, o: Any) -> tuple[Tensor, Tensor]:
        count = (u / theta).clamp(0, o.max_count)
        return count.detach().round(), count

    @staticmethod
    @override
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        return (u - s * theta,)
