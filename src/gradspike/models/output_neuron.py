"""The output neuron of LTMD after the last layer, which passes on potentials (Wang, Cheng, Lim, NeurIPS 2022)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.engine.streamed import current_pass
from gradspike.models.head import linear_head
from gradspike.neurons.base import State

THRESHOLD = math.tanh(0.5)
"""The start of LTMD's learned threshold. In this neuron it gets no gradient, so it stays there."""
DECAY = 0.25
NAME = "output_neuron"


class LtmdOutput(nn.Module):
    """Potentials above the threshold, for all steps.

        u[t] = 0.25 u[t-1] (1 - [o[t-1] > theta]) + x[t] + lateral(x[t])        u[-1] = 0
        o[t] = u[t] if u[t] > theta else 0        do/du = 1 if u >= theta - 1/2 else 0; no gradient through the reset

    `lateral` is a convolution of width 5 along the neurons, without bias.
    """

    def __init__(self, time_steps: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.lateral = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    @override
    def forward(self, currents: Tensor) -> Tensor:
        """Outputs [T*B, K] of the currents [T*B, K] of the last layer, in their dtype."""
        # Rounding to a shorter dtype would add up over the steps.
        x = currents if currents.dtype == torch.float64 else currents.float()
        with torch.autocast(x.device.type, enabled=False):
            x = x + self.lateral(x.unsqueeze(1)).squeeze(1)
        if (step_pass := current_pass()) is not None:
            u = self._charged(x, step_pass.recall(NAME, x))
            o: Tensor = _AboveThreshold.apply(u)
            step_pass.keep(NAME, (u, o))
            return o.to(currents.dtype)
        outputs = []
        state: State | None = None
        for step in torch.unflatten(x, 0, (self.time_steps, -1)):
            u = self._charged(step, state)
            outputs.append(_AboveThreshold.apply(u))
            state = u, outputs[-1]
        return torch.cat(outputs).to(currents.dtype)

    @staticmethod
    def _charged(x: Tensor, state: State | None) -> Tensor:
        """u[t] from x[t] and (u[t-1], o[t-1])."""
        if state is None:
            return x
        u, o = state
        return DECAY * u * (o <= THRESHOLD) + x


class _AboveThreshold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return u * (u > THRESHOLD)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        u: Tensor
        (u,) = ctx.saved_tensors
        return grad * (u >= THRESHOLD - 0.5)


def add_output_neuron(model: nn.Module, readout: str, time_steps: int) -> None:
    """Put the output neuron `readout` behind the linear layer `model.head`; nothing for "current".

    A hook, so that it changes no name of another parameter. Raises ConfigError if the model has no such layer.
    """
    if readout == "current":
        return
    head = linear_head(model, f"model.readout={readout}", "behind", "model.readout=current")
    model.output_neuron = LtmdOutput(time_steps)
    head.register_forward_hook(_OutputHook(model.output_neuron))


class _OutputHook:
    """An object, not a closure, because models are copied and pickled."""

    def __init__(self, neuron: nn.Module) -> None:
        self.neuron = neuron

    def __call__(self, head: nn.Module, inputs: tuple[Tensor], currents: Tensor) -> Tensor:
        outputs: Tensor = self.neuron(currents)
        return outputs
