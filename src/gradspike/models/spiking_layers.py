"""The spiking layers of a finished network: their names, their inputs' shapes, and whether their parts fit."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gradspike.errors import ConfigError
from gradspike.methods.base import LayerFacts, Method, check_method
from gradspike.neurons.base import Neuron
from gradspike.spiking_norm import NormReLU, SpikingNorm


def name_layers(model: nn.Module) -> None:
    """Name each spiking layer of a model, and check that each method returns what it declares.

    Raises ConfigError, naming method and layer.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, SpikingNorm):
            layer.layer_name = name
            facts = layer.facts_when_built()
            if layer.feedback is not None and layer.neuron.charges_at_once:
                raise ConfigError(
                    f"layer '{name}': neuron '{layer.neuron.config.name}' computes all time steps at once, so the "
                    "spikes of one cannot reach the next. Choose another neuron, or a network without feedback."
                )
            check_pairing(layer.method, layer.neuron, facts)
            check_method(layer.method, facts)
        elif isinstance(layer, NormReLU):
            layer.layer_name = name


def layer_shapes(layers: Iterable[SpikingNorm], model: nn.Module, inputs: Tensor) -> dict[SpikingNorm, tuple[int, ...]]:
    """Shapes [T*B, C, *space] of what these layers of a model receive, from one pass over `inputs` in evaluation.

    A layer that receives the same at every step has [B, C, *space].
    """
    shapes: dict[SpikingNorm, tuple[int, ...]] = {}

    def record(layer: SpikingNorm, arguments: tuple[Tensor, ...]) -> None:
        shapes[layer] = tuple(arguments[0].shape)

    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.eval()(inputs)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return shapes


def set_spaces(model: nn.Module, inputs: Tensor) -> None:
    """Tell methods with values for each neuron the sizes of their layers, from one pass over `inputs`.

    Nothing if there are none. Raises ConfigError as `name_layers` does.
    """
    layers = [one for one in model.modules() if isinstance(one, SpikingNorm) and one.method.per_neuron]
    if not layers:
        return
    for layer, shape in layer_shapes(layers, model, inputs).items():
        layer.method.set_space(shape[2:])
        check_method(layer.method, layer.facts_when_built())


def check_pairing(method: Method, neuron: Neuron, facts: LayerFacts) -> None:
    """Raises ConfigError if method and neuron cannot be combined: both set the threshold, or the neuron has no
    surrogate whose width the method could set.
    """
    name = neuron.config.name
    if neuron.threshold is not None:
        with torch.no_grad():
            plan = None if method.measures(facts) else method.planned(facts)
        other = plan is not None and bool((plan.thresholds != facts.v_threshold).any())
        if method.sets_threshold or other:
            raise method.error(f"sets the threshold, but neuron '{name}' has a threshold of its own.")
        if method.scales_spikes:
            raise method.error(f"scales spikes by the threshold, but neuron '{name}' has a threshold of its own.")
    if neuron.has_own_gradient and method.sets_width:
        raise method.error(f"sets the surrogate's width, but neuron '{name}' has a gradient of its own.")
