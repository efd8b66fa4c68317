"""The leaky integrator with all its options: hard or soft reset, to any value, with or without decay of the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from gradspike.neurons.base import Neuron, State, Values, has_standard_options
from gradspike.neurons.options import LeakyConfig


class Leaky(Neuron):
    """u[t] = leak(x[t], w[t-1]). A subclass has `decay`.

    With the default options this is the standard neuron. A subclass with dynamics of its own is not.
    """

    @staticmethod
    @override
    def start(x: Tensor, p: Values, o: Any) -> State:
        return (torch.full_like(x, o.v_reset),)

    @staticmethod
    @override
    def charge(x: Tensor, state: State, p: Values, o: Any) -> Tensor:
        (w,) = state
        return leak(x, w, p["decay"], o)

    @staticmethod
    @override
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        if o.reset == "soft":
            return (u - s * theta,)
        return (u * (1 - s) + s * o.v_reset if o.v_reset else u * (1 - s),)

    @override
    def _has_standard_dynamics(self) -> bool:
        o = self.config
        assert isinstance(o, LeakyConfig)
        standard = o.reset == "hard" and o.v_reset == 0 and not o.decay_input and has_standard_options(o)
        return standard and self._has_dynamics_of(Leaky)


def leak(x: Tensor, w: Tensor, decay: Tensor, o: Any) -> Tensor:
    """v_reset + decay (w - v_reset) + x; with `decay_input`, x is multiplied by 1 - decay."""
    current = (1 - decay) * x if o.decay_input else x
    if o.v_reset:
        w = w - o.v_reset
        return decay * w + o.v_reset + current  # type: ignore[no-any-return]
    return decay * w + current
