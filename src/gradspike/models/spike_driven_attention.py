"""Spike-driven self-attention: sums and masks of spikes, without products (SDSA; Yao et al., NeurIPS 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradspike.models.attention import THRESHOLD, SpikeProduct
from gradspike.models.blocks import biased_conv1x1
from gradspike.models.pooling import MaxPool2d
from gradspike.spiking_norm import LayerContext


class SpikeDrivenAttention(nn.Module):
    """A mask for the channels of q from k and v, with the residual stream in currents.

        z = neuron(x);  q, k, v = neuron(norm(conv z))
        a = neuron(sum over positions of k v)      one spike for each channel
        out = x + norm(conv(q a))

    All convolutions are 1x1. pooled: 3x3 max pooling with stride 1 of k and v over space, and of k v and q a over the
    positions and channels of each head, as in the released form for events. Otherwise `heads` has no effect.
    """

    def __init__(self, channels: int, heads: int, pooled: bool, context: LayerContext) -> None:
        super().__init__()
        self.heads = heads
        self.neuron = context.neuron_layer(channels)
        self.q, self.k, self.v = (biased_conv1x1(channels, channels, bias=False) for _ in range(3))
        self.q_neuron, self.k_neuron, self.v_neuron = (context.layer(channels) for _ in range(3))
        self.pool = MaxPool2d(3, 1, padding=1) if pooled else None
        self.total = SpikeProduct()
        self.mask_neuron = context.neuron_layer(channels, THRESHOLD)
        self.project = biased_conv1x1(channels, channels)
        self.project_norm = context.channel_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Currents [T*B, C, H, W] -> currents [T*B, C, H, W]."""
        z = self.neuron(x)
        q, k, v = self.q_neuron(self.q(z)), self.k_neuron(self.k(z)), self.v_neuron(self.v(z))
        if self.pool is not None:
            k = self._pooled_heads(self.pool(k) * self.pool(v))
            v = torch.ones_like(k)
        # A product of a row and a column for each channel: the sum, with its operations counted.
        total = self.total(k.flatten(2).unsqueeze(2), v.flatten(2).unsqueeze(3))
        y = q * self.mask_neuron(total).to(q.dtype)
        if self.pool is not None:
            y = self._pooled_heads(y)
        current: Tensor = self.project_norm(self.project(y))
        return x + current

    def _pooled_heads(self, x: Tensor) -> Tensor:
        """Pooled over [N, C / heads] of each head."""
        assert self.pool is not None
        per_head = torch.unflatten(x.flatten(2), 1, (self.heads, -1)).transpose(2, 3)
        pooled: Tensor = self.pool(per_head)
        return pooled.transpose(2, 3).reshape(x.shape)
