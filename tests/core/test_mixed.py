"""Neurons whose potentials are a mixture of the currents: the formulas of their own against the reference engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from gradspike.engine import derived, mixture_map
from gradspike.engine.base import Engine
from gradspike.methods.base import LayerFacts, Plan
from gradspike.methods.diet_snn import DietSnn
from gradspike.neurons.base import Values
from gradspike.neurons.psn import PSN
from gradspike.spiking_norm import LayerContext, SpikingNorm
from helpers.engine_pairs import both
from helpers.engines import ENGINES
from helpers.method_checks import B, C, T, make_input, method_config
from helpers.part_options import neuron_config, norm_config

NEURONS: dict[str, dict[str, Any]] = {
    "psn": {"name": "psn"},
    "masked": {"name": "masked_psn", "k": 2},
    "partly masked": {"name": "masked_psn", "k": 2, "mask": 0.4},
    "sliding": {"name": "sliding_psn", "k": 3},
}
CASES: dict[str, dict[str, Any]] = {
    "rows": {"channels_last": True},
    "planes": {},
    "still": {"static": True},
    "given statistics": {"training": False},
    "no norm": {"norm": False},
    "still, no norm": {"static": True, "norm": False},
    "above": {"fires": "above_threshold"},
    "moments": {"method": "mpd_sgr"},
    "learned widths": {"method": "psg"},
    "learned threshold": {"method": "diet_snn"},
}


def made(
    neuron: dict[str, Any], *, method: str = "fixed_sg", norm: bool = True, time_steps: int = T, **options: Any
) -> SpikingNorm:
    """A layer in float64 whose gains, biases and weights all matter."""
    fires = {key: options.pop(key) for key in ("fires",) if key in options}
    context = LayerContext(
        time_steps, neuron_config(**neuron, **fires), method_config(method, **options), norm_config("bn")
    )
    layer = SpikingNorm(C, context, norm=norm).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.3 + 0.5 * torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype))
        layer.neuron.get_parameter("bias").neg_()
    return layer


def assert_equal_results(engine: Engine, layer: SpikingNorm, y: Tensor, static: bool) -> None:
    expected, found = both(engine, layer, y, static)
    assert 0 < expected[0].mean() < 1
    assert (expected[1] != 0).any()
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("most_pairs", [20, 0], ids=["by pairs", "by product"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("neuron", NEURONS)
def test_gradients_are_those_of_the_reference(
    neuron: str, case: str, most_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixture_map, "MOST_PAIRS", most_pairs)
    options = dict(CASES[case])
    static, training = options.pop("static", False), options.pop("training", True)
    layout = torch.channels_last if options.pop("channels_last", False) else torch.contiguous_format
    layer = made(NEURONS[neuron], **options).train(training)
    y = make_input(dtype=torch.float64)[: B if static else T * B].contiguous(memory_format=layout)
    # The derived formulas would give the same numbers.
    monkeypatch.setattr(derived, "_backward", lambda *_: pytest.fail("the backward pass was derived"))
    assert_equal_results(ENGINES["formulas"], layer, y, static)


def test_one_step() -> None:
    layer = made({"name": "sliding_psn", "k": 1}, time_steps=1)
    assert_equal_results(ENGINES["formulas"], layer, make_input(dtype=torch.float64), static=False)


def test_masked_weights_have_no_gradient() -> None:
    layer = made(NEURONS["masked"])
    layer._run = ENGINES["formulas"]
    layer(make_input(dtype=torch.float64)).sum().backward()
    weight = layer.neuron.get_parameter("weight")
    assert weight.grad is not None
    window = torch.ones(T, T, dtype=torch.bool).tril().triu(-1)
    assert torch.equal(weight.grad != 0, window)


class OfChannels(DietSnn):
    """A learned threshold for each channel and step."""

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        shares = torch.linspace(0.5, 1.5, facts.time_steps * C).view(facts.time_steps, C)
        return Plan((self.threshold * shares).to(facts.dtype), facts.full(0.7))


@pytest.mark.parametrize("most_pairs", [20, 0], ids=["by pairs", "by product"])
def test_thresholds_of_channels(most_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture_map, "MOST_PAIRS", most_pairs)
    layer = made(NEURONS["psn"], method="diet_snn")
    layer.method.__class__ = OfChannels
    assert_equal_results(ENGINES["formulas"], layer, make_input(dtype=torch.float64), static=False)


class Doubled(PSN):
    """A neuron of one's own with other potentials than the mixture that it inherits."""

    @staticmethod
    def charge_all(currents: Any, p: Values, o: Any) -> list[Tensor]:
        total = currents[0]
        for current in currents[1:]:
            total = total + current
        return [2 * total * row[0] + bias for row, bias in zip(p["weight"], p["bias"], strict=True)]


def test_a_subclass_that_charges_otherwise_is_not_taken_for_the_mixture() -> None:
    layer = made(NEURONS["psn"])
    plain = layer(make_input(dtype=torch.float64))
    layer.neuron.__class__ = Doubled
    assert not torch.equal(layer(make_input(dtype=torch.float64)), plain)
    assert_equal_results(ENGINES["formulas"], layer, make_input(dtype=torch.float64), False)


@pytest.mark.slow
@pytest.mark.parametrize(("neuron", "time_steps"), [("sliding", 2), ("masked", 10), ("psn", 5), ("psn", 10)])
def test_compiled_kernels(neuron: str, time_steps: int) -> None:
    """In float32, where the current beside the threshold may round to either side."""
    layer = made(NEURONS[neuron] | ({} if neuron == "psn" else {"k": 2}), time_steps=time_steps).float()
    y = make_input(time_steps=time_steps)
    expected, found = both(ENGINES["compiled"], layer, y, static=False)
    assert (expected[0] != found[0]).float().mean() < 0.01
    for one, other in zip(expected[1:], found[1:], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
