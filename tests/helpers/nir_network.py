"""Runs a NIR graph by its definition: Euler steps of dt, recurrent edges one step late."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class NirNetwork:
    """`network(frames)` gives every node's output at every step, {name: [T, B, ...]}."""

    def __init__(self, graph: nir.NIRGraph, dt: float = 1e-4) -> None:
        self.graph, self.dt = graph, dt
        self.order = self._ordered()

    def __call__(self, frames: Tensor) -> dict[str, Tensor]:
        """`frames` [T, B, C, H, W]."""
        state: dict[str, Tensor] = {}
        last: dict[str, Tensor] = {}
        outputs: dict[str, list[Tensor]] = {name: [] for name in self.order}
        for frame in frames:
            now: dict[str, Tensor] = {}
            for name in self.order:
                given = [now.get(a, last.get(a)) for a, b in self.graph.edges if b == name]
                total = sum((value for value in given if value is not None), torch.zeros(()))
                node = self.graph.nodes[name]
                now[name] = frame if isinstance(node, nir.Input) else self._compute(name, node, total, state)
                outputs[name].append(now[name])
            last = now
        return {name: torch.stack(values) for name, values in outputs.items()}

    def _ordered(self) -> list[str]:
        """Nodes after those that they read, where edges from a reset or a feedback to the neuron may come later."""
        nodes, order = self.graph.nodes, []
        late = {
            (a, b)
            for a, b in self.graph.edges
            if (isinstance(nodes[a], nir.Scale) and isinstance(nodes[b], nir.LI | nir.I)) or a == f"{b}.feedback"
        }
        while len(order) < len(nodes):
            ready = [
                name
                for name in nodes
                if name not in order
                and all(a in order for a, b in self.graph.edges if b == name and (a, b) not in late)
            ]
            assert ready, "the graph has a cycle without an integrator"
            order += ready
        return order

    def _compute(self, name: str, node: Any, x: Tensor, state: dict[str, Tensor]) -> Tensor:
        if isinstance(node, nir.Output):
            return x
        if isinstance(node, nir.Conv2d):
            padding = node.padding if isinstance(node.padding, str) else _pair(node.padding)
            weight, bias = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
            return F.conv2d(x, weight, bias, _pair(node.stride), padding, _pair(node.dilation), int(node.groups))
        if isinstance(node, nir.Affine):
            return F.linear(x, torch.from_numpy(node.weight), torch.from_numpy(node.bias))
        if isinstance(node, nir.AvgPool2d):
            return F.avg_pool2d(x, _pair(node.kernel_size), _pair(node.stride), _pair(node.padding))
        if isinstance(node, nir.Flatten):
            assert (node.start_dim, node.end_dim) == (0, -1)
            return x.flatten(1)
        if isinstance(node, nir.Scale):
            return x * torch.from_numpy(node.scale)
        if isinstance(node, nir.Threshold):
            return (x > torch.from_numpy(node.threshold)).to(x.dtype)
        return self._integrate(name, node, x, state)

    def _integrate(self, name: str, node: Any, x: Tensor, state: dict[str, Tensor]) -> Tensor:
        assert isinstance(node, nir.LIF | nir.IF | nir.LI | nir.I), type(node)
        value = {key: torch.from_numpy(array) for key, array in vars(node).items() if isinstance(array, np.ndarray)}
        resting = value.get("v_reset", torch.zeros_like(value["r"]))
        v = state.get(name, resting.expand_as(x))
        if isinstance(node, nir.LIF | nir.LI):
            v = v + self.dt / value["tau"] * (value["v_leak"] - v + value["r"] * x)
        else:
            v = v + self.dt * value["r"] * x
        if isinstance(node, nir.LI | nir.I):
            state[name] = v
            return v
        fired = v > value["v_threshold"]
        state[name] = torch.where(fired, resting, v)
        return fired.to(x.dtype)


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in np.broadcast_to(np.asarray(value), 2))
