"""The neuron: one step of its recursion forward and backward, and the modules that hold its decay factor.

    u[t] = tau * u[t-1] * (1 - s[t-1]) + x[t]        u[-1] = 0, hard reset to 0
    s[t] = 1 if u[t] >= theta[t] else 0

Every engine is built from, or tested against, the functions of this file. The membrane potential is local to an
engine's call: no module keeps it, so there is nothing to reset between batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.neurons.options import NeuronConfig
from gradspike.surrogate import Surrogate


def charge(x: Tensor, u_previous: Tensor, s_previous: Tensor, decay: Tensor) -> Tensor:
    """u[t] from the current x[t] and the previous step, all [B, C, ...]; `decay` (tau) is a scalar."""
    return decay * u_previous * (1 - s_previous) + x


def fire(u: Tensor, theta: Tensor, kappa: Tensor, surrogate: Surrogate, smooth: bool) -> Tensor:
    """s[t], binary. With `smooth`, the surrogate's primitive: the backward step is that network's exact gradient."""
    return surrogate.primitive(u - theta, kappa) if smooth else u >= theta


def spike_adjoint(grad_s: Tensor, grad_u_next: Tensor | None, u: Tensor, decay: Tensor, detach_reset: bool) -> Tensor:
    """Total derivative of the loss with respect to s[t]: directly (`grad_s`), and through the reset of step t + 1.

    `grad_u_next` is dL/du[t+1], None at the last step.
    """
    if grad_u_next is None or detach_reset:
        return grad_s
    return grad_s - decay * u * grad_u_next


def membrane_adjoint(adjoint: Tensor, grad_u_next: Tensor | None, h: Tensor, s: Tensor, decay: Tensor) -> Tensor:
    """dL/du[t] = h(v[t]) * adjoint + tau * (1 - s[t]) * dL/du[t+1], which is dL/dx[t] as well."""
    if grad_u_next is None:
        return h * adjoint
    return h * adjoint + decay * (1 - s) * grad_u_next


class LIF(nn.Module):
    """Constant decay factor. It has no parameter and adds nothing to a state dict."""

    decay: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.value = decay
        self.register_buffer("decay", torch.tensor(decay), persistent=False)

    @override
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LIF:
        # A change of dtype would keep the rounding of the old one, and to_empty() would leave garbage.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.decay.fill_(self.value)
        return self

    @override
    def extra_repr(self) -> str:
        return f"decay={self.value}"


class PLIF(nn.Module):
    """One learnable logit per layer: decay = sigmoid(w), w = -log(1 / decay - 1) at first (Fang et al., ICCV 2021)."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay_logit = nn.Parameter(torch.tensor(-math.log(1 / decay - 1)))

    @property
    def decay(self) -> Tensor:
        """Scalar in (0, 1), differentiable."""
        return torch.sigmoid(self.decay_logit)


NEURONS: dict[str, type[LIF] | type[PLIF]] = {"lif": LIF, "plif": PLIF}


def build_neuron(config: NeuronConfig) -> LIF | PLIF:
    """A new neuron module for one layer."""
    return NEURONS[config.name](config.decay)
