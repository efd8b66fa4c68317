"""The neurons by name. Light: imports no torch. A new neuron needs a line here, a file and a YAML."""

from __future__ import annotations

from gradspike.neurons.options import NeuronConfig
from gradspike.registry import Registry

NEURONS: Registry[NeuronConfig] = Registry(
    "neuron",
    NeuronConfig,
    {
        "if": "gradspike.neurons.integrate_and_fire:IntegrateAndFire",
        "lif": "gradspike.neurons.lif:LIF",
        "plif": "gradspike.neurons.plif:PLIF",
        "klif": "gradspike.neurons.klif:KLIF",
        "glif": "gradspike.neurons.glif:GLIF",
        "clif": "gradspike.neurons.clif:CLIF",
        "psn": "gradspike.neurons.psn:PSN",
        "masked_psn": "gradspike.neurons.psn:MaskedPSN",
        "sliding_psn": "gradspike.neurons.psn:SlidingPSN",
        "ilif": "gradspike.neurons.ilif:ILIF",
        "mpr": "gradspike.neurons.mpr:MPR",
        "trsg": "gradspike.neurons.trsg:TrsgNeuron",
    },
)
