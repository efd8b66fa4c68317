"""Synaptic operations and energy of one inference, from what the layers of a run were given.

    whole inputs (spikes, counts of spikes)   mean |input| x MACs accumulates (AC), each 0.9 pJ
    real inputs, and every layer of an ANN    MACs multiply-accumulates, dense, each 4.6 pJ

An ANN that is fed a still picture does at each time step what it did at the first one, so that it counts once.

32-bit floating point in 45 nm (Horowitz, ISSCC 2014). An input of n stands for n spikes and counts as n accumulates.
The input's mean stands for all of a layer's synapses, borders included. Memory access, neurons and norms are left out,
as everywhere in this literature; so this compares networks, and is no measurement of a chip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PJ_MAC = 4.6
PJ_AC = 0.9


@dataclass(frozen=True)
class LayerEnergy:
    """One layer and one sample, all time steps together."""

    name: str
    macs: int
    operations: float
    accumulates: bool
    picojoules: float
    skipping: float
    """Energy if a multiplication by zero cost nothing."""
    activity: float | None
    """Share of inputs that are not zero, mean over steps."""


@dataclass(frozen=True)
class Energy:
    """A network, for one sample."""

    layers: tuple[LayerEnergy, ...]

    @property
    def macs(self) -> int:
        """Operations if every input counted."""
        return sum(layer.macs for layer in self.layers)

    @property
    def accumulates(self) -> float:
        """AC."""
        return sum(layer.operations for layer in self.layers if layer.accumulates)

    @property
    def multiplies(self) -> float:
        """MAC."""
        return sum(layer.operations for layer in self.layers if not layer.accumulates)

    @property
    def nanojoules(self) -> float:
        """Energy of an inference."""
        return sum(layer.picojoules for layer in self.layers) / 1000

    @property
    def nanojoules_skipping(self) -> float:
        """The same on hardware that skips zeros in front of multiplications too."""
        return sum(layer.skipping for layer in self.layers) / 1000


def energy_of(layers: Sequence[Mapping[str, Any]], is_ann: bool) -> Energy:
    """Energy from the records of `cost.synapses`; NaN where the inputs of a layer were not finite."""
    still = is_ann and bool(layers) and layers[0].get("steps") == 1
    return Energy(tuple(_layer(layer, is_ann, int(layer["steps"]) if still else 1) for layer in layers))


def _layer(layer: Mapping[str, Any], is_ann: bool, repeats: int) -> LayerEnergy:
    """One layer's operations; `repeats` of them are the same."""
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
