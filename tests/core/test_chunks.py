"""Many time steps in chunks: the numbers of the reference, and the same kernels for any number of steps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from typing_extensions import override

from gradspike.collected import collect_losses
from gradspike.engine import compiled, eager, formulas
from gradspike.engine.base import Engine
from gradspike.engine.chunks import even_chunks
from gradspike.engine.fused import FusedEngine
from gradspike.models.spiking_layers import name_layers
from gradspike.neurons.base import State, Values
from gradspike.spiking_norm import LayerContext, SpikingNorm
from helpers.engines import GivenDecay
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config

T, B, C = 9, 2, 3
CHUNKED = FusedEngine(formulas, most_steps=2, most_derived=2)


def make(neuron: str, method: str = "fixed_sg", time_steps: int = T, **options: Any) -> SpikingNorm:
    torch.manual_seed(0)
    config = neuron_config(neuron, **options)
    layer = LayerContext(time_steps, config, method_config(method), norm_config()).layer(C)
    assert isinstance(layer, SpikingNorm)
    name_layers(layer)
    return layer


def step(layer: SpikingNorm, run: Engine, y: Tensor, static: bool = False) -> dict[str, Tensor]:
    """Spikes, all gradients and buffers after a step."""
    layer = copy.deepcopy(layer)
    layer._run = run
    y = y.clone().requires_grad_()
    torch.manual_seed(3)
    with collect_losses() as extra:
        spikes = layer(y, static=static)
    weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    ((spikes * weights).sum() + extra.mean()).backward()
    assert y.grad is not None
    grads = {f"grad {name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return {"spikes": spikes.detach(), "grad y": y.grad, **grads, **dict(layer.named_buffers())}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, **tolerance, msg=lambda text, key=key: f"{key}: {text}")


def made_input(time_steps: int = T) -> Tensor:
    return torch.randn(time_steps * B, C, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3


@pytest.mark.parametrize("static", [False, True], ids=["moving", "still"])
@pytest.mark.parametrize(
    ("neuron", "method", "options"),
    [
        ("lif", "fixed_sg", {}),
        ("lif", "fixed_sg", {"gradient": "sltt"}),
        ("plif", "psg_pda", {}),
        ("plif", "ds_atgo", {}),
        ("plif", "asgl", {}),
        ("plif", "diet_snn", {}),
        ("glif", "fixed_sg", {}),
        ("clif", "fixed_sg", {}),
        ("trsg", "fixed_sg", {}),
    ],
)
def test_chunks_have_the_numbers_of_the_reference(
    neuron: str, method: str, options: dict[str, Any], static: bool
) -> None:
    """Moments, measured thresholds, noise, values of single steps, two states, and a start that is followed."""
    layer = make(neuron, method, **options).double()
    y = made_input()[: B if static else None]
    assert_same(step(layer, CHUNKED, y, static), step(layer, eager.run, y, static), rtol=1e-9, atol=1e-12)


def test_evaluation_in_chunks() -> None:
    layer = make("plif", "ds_atgo").double().eval()
    assert_same(step(layer, CHUNKED, made_input()), step(layer, eager.run, made_input()), rtol=1e-9, atol=1e-12)


class Begins(GivenDecay):
    """Begins at a learned share of the first current."""

    axes = {"decay": "", "share": ""}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(torch.tensor(0.5, dtype=torch.float64), T)
        self.share = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    @override
    def values(self) -> dict[str, Tensor]:
        return {**super().values(), "share": self.share}

    @staticmethod
    @override
    def start(x: Tensor, p: Values, o: Any) -> State:
        return (x * p["share"],)


def test_gradients_reach_the_state_before_the_first_step() -> None:
    layer = make("lif").double()
    layer.neuron = Begins()
    found, expected = (step(layer, run, made_input()) for run in (CHUNKED, eager.run))
    assert expected["grad neuron.share"].abs() > 1e-3
    assert_same(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("time_steps", range(11, 60))
def test_chunks_are_of_one_size_and_a_rest(time_steps: int) -> None:
    sizes = even_chunks(time_steps)
    assert sum(sizes) == time_steps
    assert len(set(sizes[:-1])) == 1
    assert sizes[-1] <= sizes[0] <= 6


def test_300_steps_compile_what_12_compile() -> None:
    """300 steps, as of N-MNIST at 1 ms, would compile for many minutes if kernels had them all."""
    with torch.no_grad():
        found = []
        for time_steps in (12, 300):
            layer = make("lif", time_steps=time_steps).eval()
            y = made_input(time_steps).float()
            expected = layer(y)
            layer._run = compiled.run
            assert torch.equal(layer(y), expected)
            found.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("neuron", ["plif", "clif"])
def test_compiled_chunks_train_as_the_reference(neuron: str) -> None:
    layer, y = make(neuron, time_steps=17), made_input(17).float()
    assert_same(step(layer, compiled.run, y), step(layer, eager.run, y), rtol=1e-3, atol=1e-4)


def test_a_neuron_that_charges_all_steps_at_once_says_that_it_is_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    layer = make("psn", time_steps=50)
    y = made_input(50).float()
    expected = layer(y)
    layer._run = compiled.run
    with caplog.at_level("WARNING"):
        assert torch.equal(layer(y), expected)
        layer(y)
    assert [record.getMessage() for record in caplog.records if "T = 50" in record.getMessage()] == [
        "T = 50: neuron 'psn' charges all time steps at once, and with more than 10 the kernels would compile for "
        "minutes. Layers run on the reference engine, as with engine=eager."
    ]
