"""The neurons by name. Light: imports no torch."""

from __future__ import annotations

from gradspike.neurons.options import NeuronConfig
from gradspike.registry import Registry

NEURONS: Registry[NeuronConfig] = Registry(
    "neuron",
    NeuronConfig,
    {
        "lif": "gradspike.neurons.lif:LIF",
        "plif": "gradspike.neurons.plif:PLIF",
    },
)
