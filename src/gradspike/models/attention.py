"""Spiking self-attention: products of spikes per head, without a softmax (SSA; Zhou et al., ICLR 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradspike.models.across_samples import AcrossSamples
from gradspike.models.blocks import biased_conv1x1
from gradspike.spiking_norm import LayerContext

THRESHOLD = 0.5
"""Threshold of the neurons behind attention, in units of V_th."""


class SpikeProduct(nn.Module):
    """The matrix product of spikes [..., n, m] and counts [..., m, k], in float32 or float64.

    Not in a shorter dtype, which would round counts above 256 (bfloat16) or 2048 (float16). A module, so that its
    operations are counted.
    """

    def forward(self, spikes: Tensor, counts: Tensor) -> Tensor:
        """[..., n, k]."""
        dtype = torch.float64 if spikes.dtype == torch.float64 else torch.float32
        with torch.autocast(spikes.device.type, enabled=False):
            return spikes.to(dtype) @ counts.to(dtype)


class HeadProduct(nn.Module):
    """q k^T v of each head, in the order that needs fewer operations.

    With N tokens and d channels of a head, (q k^T) v takes 2 N^2 d operations and q (k^T v) 2 N d^2.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first = SpikeProduct()
        self.second = SpikeProduct()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Spikes [T*B, C, H, W] -> counts [T*B, C, H, W]; channels of a head are neighbours."""
        shape = q.shape
        q, k, v = (torch.unflatten(x.flatten(2), 1, (self.heads, -1)) for x in (q, k, v))  # [T*B, heads, d, N]
        if q.shape[3] > q.shape[2]:
            y: Tensor = self.second(q.transpose(2, 3), self.first(k, v.transpose(2, 3))).transpose(2, 3)
        else:
            y = self.second(v, self.first(k.transpose(2, 3), q))
        return y.reshape(shape)


class SelfAttention(nn.Module):
    """q, k, v = neuron(norm(conv x)); y = neuron(scale q k^T v); neuron(norm(conv y)), all convolutions 1x1.

    bias: of the convolutions of q, k and v; the last one always has one. carried: the potential of the last neuron goes
    on from one sample to the next; see `AcrossSamples`.
    """

    def __init__(
        self, channels: int, heads: int, bias: bool, scale: float, context: LayerContext, carried: bool = False
    ) -> None:
        super().__init__()
        self.scale = scale
        self.q, self.k, self.v = (biased_conv1x1(channels, channels, bias) for _ in range(3))
        self.q_neuron, self.k_neuron, self.v_neuron = (context.layer(channels) for _ in range(3))
        self.product = HeadProduct(heads)
        self.neuron = context.neuron_layer(channels, THRESHOLD)
        self.project = biased_conv1x1(channels, channels)
        self.project_neuron = AcrossSamples(channels, context) if carried else context.layer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C, H, W] -> spikes [T*B, C, H, W]."""
        q = self.q_neuron(self.q(x))
        k = self.k_neuron(self.k(x))
        v = self.v_neuron(self.v(x))
        y = self.neuron(self.scale * self.product(q, k, v)).to(x.dtype)
        spikes: Tensor = self.project_neuron(self.project(y))
        return spikes
