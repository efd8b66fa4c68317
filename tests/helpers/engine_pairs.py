"""One layer in two engines."""

from __future__ import annotations

import copy

import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor

from gradspike.collected import collect_losses
from gradspike.engine.base import Engine
from gradspike.spiking_norm import SpikingNorm
from helpers.engines import ENGINES


def both(engine: Engine, layer: SpikingNorm, y: Tensor, static: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Spikes, all gradients and buffers after one step of the reference and of the engine."""
    results: list[list[Tensor]] = []
    for run in (ENGINES["eager"], engine):
        own, x = copy.deepcopy(layer), y.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        own._run = run
        with collect_losses() as extra:
            spikes = own(x, static=static)
        assert spikes.dtype == y.dtype
        weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(2)).to(spikes.dtype)
        ((spikes * weights).sum() + extra.mean()).backward()
        assert x.grad is not None
        assert spikes.is_contiguous() == x.grad.is_contiguous() == y.is_contiguous()
        grads = [p.grad for p in own.parameters() if p.grad is not None]
        results.append([spikes.detach(), x.grad, *grads, *(b for _, b in sorted(own.named_buffers()))])
    return results[0], results[1]
