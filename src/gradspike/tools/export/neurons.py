"""The NIR nodes of a spiking layer.

NIR describes neurons in continuous time: tau dv/dt = v_leak - v + r I. Its readers integrate it with Euler steps of
`DT` seconds, v += DT / tau (v_leak - v + r I), which is our recursion with the decay 1 - DT / tau.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradspike.engine.base import over_channels, planned
from gradspike.errors import ConfigError
from gradspike.neurons.base import DYNAMICS
from gradspike.neurons.leaky import Leaky
from gradspike.neurons.options import LeakyConfig
from gradspike.spiking_norm import SpikingNorm

DT = 1e-4
"""Seconds of one time step: the default of the readers. Only decay and r depend on it, and the readers undo both."""

Edge = tuple[str, str]


def require_equivalent(name: str, layer: SpikingNorm) -> None:
    """Raise ConfigError if NIR has no equivalent of the layer's neuron, or of what surrounds it."""
    neuron = layer.neuron
    known = isinstance(neuron, Leaky) and not neuron.follows_end
    if not known or any(getattr(type(neuron), part) is not getattr(Leaky, part) for part in DYNAMICS):
        raise refused(name, f"neuron '{neuron.config.name}' has no equivalent in NIR, which has lif, plif and if")
    if layer.potential_norm is not None:
        raise refused(name, "its norm of the membrane potential has no equivalent in NIR")
    if layer.norm is not None and layer.norm.per_step:
        raise refused(name, "its norm has values for each time step, and NIR describes one step")


def refused(name: str, reason: str) -> ConfigError:
    """The error for a layer that NIR cannot describe."""
    return ConfigError(f"layer '{name}': {reason}.")


@torch.no_grad()
def thresholds_of(name: str, layer: SpikingNorm, x: Tensor) -> Tensor:
    """The thresholds in evaluation, [T] or [T, C], or [T, C, *space] if they differ between neurons; x sets the dtype.

    Raises ConfigError if the method measures them on each batch.
    """
    thresholds, _ = planned(layer.neuron, layer.method, layer.facts(x, gradients=False, updates=False))
    if thresholds is None:
        raise refused(name, f"method '{layer.method.config.name}' measures its thresholds on each batch")
    return thresholds


@torch.no_grad()
def spiking_nodes(
    name: str, layer: SpikingNorm, shape: tuple[int, ...], x: Tensor
) -> tuple[dict[str, Any], list[Edge], str]:
    """Nodes and inner edges of a layer with neurons of this shape [C, *space], and the name of the node that fires.

    The layer's currents enter at the node `name`. x: a tensor in the dtype of the numbers. Raises ConfigError if the
    time steps have different thresholds.
    """
    thresholds = thresholds_of(name, layer, x)
    if not torch.equal(thresholds, thresholds[:1].expand_as(thresholds)):
        low, high = thresholds.min().item(), thresholds.max().item()
        raise refused(
            name,
            f"method '{layer.method.config.name}' has another threshold at each time step ({low:.4g} to {high:.4g}), "
            "and NIR has one. thresholds=mean writes their mean over the steps",
        )
    options, decay = layer.neuron.config, layer.neuron.decay
    assert isinstance(options, LeakyConfig)
    assert decay is not None
    theta = over_channels(thresholds[0], x.new_empty(1, *shape)).expand(1, *shape)[0]
    full = _Filled(shape, x.new_empty(0).numpy().dtype)
    fires_at = theta.numpy()
    if options.fires == "at_threshold":
        # NIR fires above the threshold: the next lower number, which only the threshold itself separates from it.
        fires_at = np.nextafter(fires_at, np.asarray(-np.inf, fires_at.dtype))
    leaks = options.name != "if"
    step = 1 - float(decay)  # DT / tau
    r = (1.0 if options.decay_input else 1 / step) if leaks else 1 / DT
    nodes: dict[str, Any]
    edges: list[Edge] = []
    last = name
    if options.reset == "hard":
        common = {"r": full(r), "v_threshold": fires_at, "v_reset": full(options.v_reset)}
        leak = {"tau": full(DT / step), "v_leak": full(options.v_reset)} if leaks else {}
        nodes = {name: (nir.LIF if leaks else nir.IF)(**common, **leak)}
    else:
        nodes, edges, last = _soft(name, full, theta.numpy(), fires_at, r, step if leaks else None)
    if layer.method.scales_spikes:
        scaled = f"{name}.scale"
        nodes[scaled] = nir.Scale(theta.numpy().copy())
        edges.append((last, scaled))
        last = scaled
    return nodes, edges, last


def _soft(
    name: str, full: _Filled, theta: NDArray[Any], fires_at: NDArray[Any], r: float, step: float | None
) -> tuple[dict[str, Any], list[Edge], str]:
    """An integrator, a threshold, and an inhibition by what the reset subtracts. NIR's own neurons have a hard reset.

    The inhibition arrives one step later, when decay times theta would be left of the threshold: u[t] = decay u[t-1] +
    x[t] - decay theta s[t-1]. step: DT / tau; None without a leak.
    """
    threshold, feedback = f"{name}.threshold", f"{name}.reset"
    if step is None:
        integrator, back = nir.I(r=full(r)), -theta
    else:
        integrator = nir.LI(tau=full(DT / step), r=full(r), v_leak=full(0.0))
        back = -theta * np.asarray((1 - step) / (step * r), theta.dtype)
    nodes = {name: integrator, threshold: nir.Threshold(fires_at), feedback: nir.Scale(back)}
    return nodes, [(name, threshold), (threshold, feedback), (feedback, name)], threshold


class _Filled:
    """Arrays of one shape and type."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, dtype

    def __call__(self, value: float) -> NDArray[Any]:
        return np.full(self.shape, value, self.dtype)
