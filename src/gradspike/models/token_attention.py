"""Attention to tokens by a sum of spikes (QKTA; Zhou et al., "QKFormer", NeurIPS 2024), linear in their number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradspike.models.attention import THRESHOLD, SpikeProduct
from gradspike.models.blocks import biased_conv1x1
from gradspike.spiking_norm import LayerContext


class TokenAttention(nn.Module):
    """q, k = neuron(norm(conv x)); a = neuron(sum of q over the channels of a head); neuron(norm(conv(a k))).

    a is one spike for each token and head. All convolutions are 1x1, the last one with bias.
    """

    def __init__(self, channels: int, heads: int, context: LayerContext) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k = (biased_conv1x1(channels, channels, bias=False) for _ in range(2))
        self.q_neuron, self.k_neuron = (context.layer(channels) for _ in range(2))
        self.total = SpikeProduct()
        self.mask_neuron = context.neuron_layer(heads, THRESHOLD)
        self.project = biased_conv1x1(channels, channels)
        self.project_neuron = context.layer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C, H, W] -> spikes [T*B, C, H, W]."""
        q, k = self.q_neuron(self.q(x)), self.k_neuron(self.k(x))
        q, grouped = (torch.unflatten(one.flatten(2), 1, (self.heads, -1)) for one in (q, k))  # [T*B, heads, d, N]
        # A product with ones: the sum, with its operations counted.
        total = self.total(q.transpose(2, 3), q.new_ones(q.shape[2], 1)).squeeze(3)
        masked = self.mask_neuron(total).to(grouped.dtype).unsqueeze(2) * grouped
        spikes: Tensor = self.project_neuron(self.project(masked.reshape(k.shape)))
        return spikes
