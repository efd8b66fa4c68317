"""A spiking network as in typical released research code: one autograd function per time step, a Python loop over T,
torch's batch norm, samples first ([B, T, ...]).

It computes the same as ours with method=fixed_sg and neuron=lif; test_bench_step.py compares loss and gradients. In
bf16 its recursion runs in bf16, as in such code under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import SpikingNorm


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's batch norm for both [N, C] and [N, C, H, W]."""

    per_step = False

    @classmethod
    def like(cls, norm: ChannelNorm) -> BatchNorm:
        """One with the values of ours."""
        assert norm.scale == 1, "torch's batch norm has no scale besides its gain: V_th must be 1"
        own = cls(len(norm.weight), eps=norm.eps, momentum=norm.momentum)
        own.load_state_dict(norm.state_dict())
        return own

    def forward(self, input: Tensor, repeats: int = 1) -> Tensor:
        assert repeats == 1
        return super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.ndim >= 2


def replace_spiking_layers(model: nn.Module, build: Callable[[nn.Module, SpikingNorm], nn.Module]) -> nn.Module:
    """Replace each SpikingNorm by `build(batch norm, layer)`; weights and all other layers stay the same.

    A layer without a norm has an identity for it. Norms outside of spiking layers become torch's.
    """
    inner = {layer.norm for layer in model.modules() if isinstance(layer, SpikingNorm)}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, SpikingNorm):
            norm = nn.Identity() if layer.norm is None else BatchNorm.like(layer.norm)
            replace(model, name, build(norm, layer))
        elif isinstance(layer, ChannelNorm) and layer not in inner:
            replace(model, name, BatchNorm.like(layer))
    return model


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of this name."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


class _Spike(torch.autograd.Function):
    """Step function with a rectangular surrogate of area 1."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.width = width
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        inside = v.abs() < ctx.width / 2
        return grad * inside.to(grad.dtype) / ctx.width, None


class StepwiseLif(nn.Module):
    """Batch norm of [B*T, C, ...] and LIF, step by step."""

    def __init__(self, norm: nn.Module, layer: SpikingNorm, width: float) -> None:
        super().__init__()
        self.norm = norm
        self.time_steps = layer.time_steps
        self.decay = float(layer.neuron.decay)
        self.threshold = layer.v_threshold
        self.width = width

    def forward(self, y: Tensor, static: bool = False) -> Tensor:
        assert not static
        x = self.norm(y).unflatten(0, (-1, self.time_steps))
        potential: Tensor | float = 0.0
        spikes = []
        for t in range(self.time_steps):
            potential = potential * self.decay + x[:, t]
            spike = _Spike.apply(potential - self.threshold, self.width)
            potential = (1 - spike) * potential
            spikes.append(spike)
        return torch.stack(spikes, dim=1).flatten(0, 1)


class ResearchNetwork(nn.Module):
    """Frames [T, B, C, H, W], in memory [B, T, ...], -> logits [T, B, K]."""

    def __init__(self, network: nn.Module, width: float) -> None:
        super().__init__()
        self.network = replace_spiking_layers(network, lambda norm, layer: StepwiseLif(norm, layer, width))

    def forward(self, frames: Tensor) -> Tensor:
        # Our backbones unfold the first axis of [first * second, K]; here it is the batch.
        self.network.time_steps = frames.shape[1]
        logits: Tensor = self.network(frames.transpose(0, 1))
        return logits.transpose(0, 1)
