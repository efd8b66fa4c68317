"""Synaptic operations and energy of one inference, from the inputs of a run's layers.

    integer inputs (spikes, spike counts)     mean |input| x MACs accumulates (AC), 0.9 pJ each
    real inputs, and every layer of an ANN    MACs multiply-accumulates, dense, 4.6 pJ each

For a still image, an ANN without feedback computes the same at every time step, so it counts once.

32-bit floating point in 45 nm (Horowitz, ISSCC 2014). An input of n is n spikes and counts as n accumulates. The mean
input is used for all synapses of a layer, including borders. Memory access, neurons and norms are not counted, as is
usual in the literature. So the numbers compare networks; they are not measurements of a chip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FEEDBACK = "Feedback"
"""The kind of the layers by which one step changes the next."""
PJ_MAC = 4.6
PJ_AC = 0.9


@dataclass(frozen=True)
class LayerEnergy:
    """One layer, for one sample and all time steps."""

    name: str
    macs: int
    operations: float
    accumulates: bool
    picojoules: float
    skipping: float
    """Energy if multiplications by zero are free."""
    activity: float | None
    """Share of nonzero inputs, mean over steps."""


@dataclass(frozen=True)
class Energy:
    """A network, for one sample."""

    layers: tuple[LayerEnergy, ...]

    @property
    def macs(self) -> int:
        """Dense operations."""
        return sum(layer.macs for layer in self.layers)

    @property
    def accumulates(self) -> float:
        """Number of accumulates (AC)."""
        return sum(layer.operations for layer in self.layers if layer.accumulates)

    @property
    def multiplies(self) -> float:
        """Number of multiply-accumulates (MAC)."""
        return sum(layer.operations for layer in self.layers if not layer.accumulates)

    @property
    def nanojoules(self) -> float:
        """Energy of one inference."""
        return sum(layer.picojoules for layer in self.layers) / 1000

    @property
    def nanojoules_skipping(self) -> float:
        """The same on hardware that also skips multiplications by zero."""
        return sum(layer.skipping for layer in self.layers) / 1000


def energy_of(layers: Sequence[Mapping[str, Any]], is_ann: bool) -> Energy:
    """Energy from the records of `cost.synapses`; NaN for layers with inputs that are not finite."""
    still = is_ann and bool(layers) and layers[0].get("steps") == 1
    energies = []
    for layer in layers:  # in the order of computation
        still = still and layer.get("kind") != FEEDBACK  # behind it, steps differ
        energies.append(_layer(layer, is_ann, int(layer["steps"]) if still else 1))
    return Energy(tuple(energies))


def _layer(layer: Mapping[str, Any], is_ann: bool, repeats: int) -> LayerEnergy:
    """Operations of one layer; `repeats` equal computations count once."""
    macs = int(layer["macs"]) // repeats
    nonzero = [float(share) for share in layer.get("nonzero", ())]
    activity = sum(nonzero) / len(nonzero) if nonzero else None
    if layer["input"] == "whole" and nonzero and not is_ann:
        magnitude = [math.nan if value is None else float(value) for value in layer["magnitude"]]
        operations = macs * sum(magnitude) / len(magnitude)
        picojoules = PJ_AC * operations
        return LayerEnergy(str(layer["name"]), macs, operations, True, picojoules, picojoules, activity)
    picojoules = PJ_MAC * macs
    skipping = picojoules * (1.0 if activity is None else activity)
    return LayerEnergy(str(layer["name"]), macs, float(macs), False, picojoules, skipping, activity)
