"""Our backbones with neurons of SpikingJelly 2 and snnTorch 1, which are optional: `pip install gradspike[bench]`.

Same layers, same weights, time folded into the batch, torch's batch norm. Each library keeps and resets states in its
own way. Differences from ours (method=fixed_sg, neuron=lif):

- SpikingJelly: its multi-step operator has no rectangular surrogate, so the triangular one is used (ours:
  method.surrogate=triangular), or the sigmoid (method.surrogate=sigmoid). Decay is computed as v - v / tau. Pooling is
  torch's, and the products of attention are in the order of the released codes.
- snnTorch: fires above the threshold, not at it; has no gradient through the reset (ours: neuron.detach_reset=true);
  and returns fp32 spikes also under autocast.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradspike.models.attention import HeadProduct
from gradspike.models.pooling import MaxPool2d
from gradspike.models.spikformer import Spikformer
from gradspike.spiking_norm import SpikingNorm
from research_code import replace, replace_spiking_layers

# Backends of the multi-step operator by device; the variable SJ_LIF_CUDA_IMPLEMENTATION selects one.
SPIKINGJELLY_BACKENDS = {"cpu": ("torch",), "cuda": ("cuda", "triton", "torch")}


def version(package: str) -> str | None:
    """Version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class _SpikingJellyLayer(nn.Module):
    def __init__(self, norm: nn.Module, layer: SpikingNorm, width: float) -> None:
        super().__init__()
        from spikingjelly.activation_based import surrogate

        self.norm = norm
        self.time_steps = layer.time_steps
        sigmoid = layer.surrogate.name == "sigmoid"
        shape = surrogate.Sigmoid(alpha=4 / width) if sigmoid else surrogate.PiecewiseQuadratic(alpha=1 / width)
        self.node = SPIKINGJELLY_NEURONS[layer.neuron.config.name](layer, shape)

    def forward(self, y: Tensor, static: bool = False) -> Tensor:
        assert not static
        if hasattr(self.node, "reset"):
            self.node.reset()
        return self.node(self.norm(y).unflatten(0, (self.time_steps, -1))).flatten(0, 1)


class SpikformerProduct(nn.Module):
    """(q k^T) v of each head: the order of Spikformer's released code.

    QKFormer's computes q (k^T v), as ours does where a head has fewer channels than there are tokens.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Spikes [T*B, C, H, W] -> counts [T*B, C, H, W]."""
        shape = q.shape
        q, k, v = (x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for x in (q, k, v))
        return ((q @ k.transpose(2, 3)) @ v).transpose(2, 3).reshape(shape)


class _WithSpace(nn.Module):
    """Gives [T, B, C] two axes of space, without which GatedLIFNode takes B for the channels."""

    def __init__(self, node: nn.Module) -> None:
        super().__init__()
        self.node = node

    def reset(self) -> None:
        self.node.reset()

    def forward(self, x: Tensor) -> Tensor:
        return self.node(x[..., None, None])[..., 0, 0] if x.dim() == 3 else self.node(x)


def _leaky(name: str, time_constant: str = "tau", **options: Any) -> Callable[[SpikingNorm, Any], nn.Module]:
    """A constructor of SpikingJelly's class `name`, with the options of our layer."""

    def make(layer: SpikingNorm, shape: Any) -> nn.Module:
        from spikingjelly.activation_based import neuron

        leak: dict[str, Any] = {time_constant: 1 / (1 - float(layer.neuron.decay))} if time_constant else {}
        config: Any = layer.neuron.config
        if name in ("LIFNode", "ParametricLIFNode"):
            leak["decay_input"] = config.decay_input
        return getattr(neuron, name)(
            **leak,
            **options,
            v_threshold=layer.v_threshold,
            surrogate_function=shape,
            detach_reset=config.detach_reset,
            step_mode="m",
        )

    return make


def _ilif(layer: SpikingNorm, _shape: Any) -> nn.Module:
    from spikingjelly.activation_based import neuron

    tau = 1 / (1 - float(layer.neuron.decay))
    return neuron.ILIFNode(tau=tau, v_threshold=layer.v_threshold, step_mode="m")


def _clif(layer: SpikingNorm, _shape: Any) -> nn.Module:
    from spikingjelly.activation_based import neuron

    tau = 1 / (1 - float(layer.neuron.decay))
    return neuron.ComplementaryLIFNode(tau=tau, v_threshold=layer.v_threshold, step_mode="m")


def _glif(layer: SpikingNorm, shape: Any) -> nn.Module:
    from spikingjelly.activation_based import neuron

    node = neuron.GatedLIFNode(T=layer.time_steps, inplane=layer.channels, surrogate_function=shape)
    node.step_mode = "m"
    return _WithSpace(node)


def _psn(layer: SpikingNorm, shape: Any) -> nn.Module:
    from spikingjelly.activation_based import neuron

    return neuron.PSN(layer.time_steps, shape)


def _masked_psn(layer: SpikingNorm, shape: Any) -> nn.Module:
    from spikingjelly.activation_based import neuron

    options: Any = layer.neuron.config
    return neuron.MaskedPSN(options.k, layer.time_steps, options.mask, shape, step_mode="m")


def _sliding_psn(layer: SpikingNorm, shape: Any) -> nn.Module:
    from spikingjelly.activation_based import neuron

    options: Any = layer.neuron.config
    return neuron.SlidingPSN(options.k, surrogate_function=shape, step_mode="m")


SPIKINGJELLY_NEURONS: dict[str, Callable[[SpikingNorm, Any], nn.Module]] = {
    "if": _leaky("IFNode", "", v_reset=0.0),
    "lif": _leaky("LIFNode", v_reset=0.0),
    "plif": _leaky("ParametricLIFNode", "init_tau", v_reset=0.0),
    "klif": _leaky("KLIFNode", decay_input=True, v_reset=0.0),
    "clif": _clif,
    "glif": _glif,
    "ilif": _ilif,
    "psn": _psn,
    "masked_psn": _masked_psn,
    "sliding_psn": _sliding_psn,
}
"""SpikingJelly's neurons by our names."""


class _SnnTorchLayer(nn.Module):
    def __init__(self, norm: nn.Module, layer: SpikingNorm, width: float) -> None:
        super().__init__()
        import snntorch
        from snntorch.surrogate import custom_surrogate

        def rectangular(v: Tensor, grad: Tensor, _spikes: Tensor) -> Tensor:
            return grad * (v.abs() < width / 2) / width

        self.norm = norm
        self.time_steps = layer.time_steps
        self.lif = snntorch.Leaky(
            beta=float(layer.neuron.decay),
            threshold=layer.v_threshold,
            reset_mechanism="zero",
            spike_grad=custom_surrogate(rectangular),
        )

    def forward(self, y: Tensor, static: bool = False) -> Tensor:
        assert not static
        x = self.norm(y).unflatten(0, (self.time_steps, -1))
        potential = self.lif.reset_mem()
        spikes = []
        for t in range(self.time_steps):
            spike, potential = self.lif(x[t], potential)
            spikes.append(spike)
        return torch.stack(spikes).flatten(0, 1)


def spikingjelly_network(network: nn.Module, width: float, backend: str) -> nn.Module:
    """SpikingJelly's neurons. `backend`: one of SPIKINGJELLY_BACKENDS, set before the library is imported."""
    os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] = backend
    for name, layer in list(network.named_modules()):
        if isinstance(layer, MaxPool2d):
            replace(network, name, nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding))
        elif isinstance(layer, HeadProduct) and type(network) is Spikformer:
            replace(network, name, SpikformerProduct(layer.heads))
    return replace_spiking_layers(network, lambda norm, layer: _SpikingJellyLayer(norm, layer, width))


def snntorch_network(network: nn.Module, width: float) -> nn.Module:
    """snnTorch's Leaky neurons, one call per time step."""
    return replace_spiking_layers(network, lambda norm, layer: _SnnTorchLayer(norm, layer, width))
