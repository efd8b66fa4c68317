"""The product of methods, neurons and norms: each is refused with a sentence, or trains alike on the engines.

GRADSPIKE_NEURONS=my_file:MyNeuron (several with commas) runs the same tests on neurons of one's own.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from gradspike.collected import collect_losses
from gradspike.engine import formulas
from gradspike.engine.fused import FusedEngine
from gradspike.methods.registry import METHODS
from gradspike.neurons.base import Neuron, State, Values
from gradspike.neurons.klif import KLIF
from gradspike.neurons.registry import NEURONS
from gradspike.norms.registry import NORMS
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.probe.quantities import layer_statistics
from helpers.compatibility import PAGE, layer_of, page, refusal
from helpers.engines import ENGINES, compiled_slowly
from helpers.part_options import neuron_config

USERS = [path.strip() for path in os.environ.get("GRADSPIKE_NEURONS", "").split(",") if path.strip()]
PAIRS = list(itertools.product(METHODS.names(), NEURONS.names()))


def trained(layer: SpikingNorm, seed: int) -> dict[str, Tensor]:
    """Spikes, gradients and state of one training step, with equal random numbers."""
    torch.manual_seed(seed)
    y = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    layer.zero_grad()
    with collect_losses() as extra:
        spikes = layer(y)
    weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    ((spikes * weights).sum() + extra.mean()).backward()
    assert y.grad is not None
    grads = {f"grad {name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
    assert grads.keys() == {f"grad {name}" for name, p in layer.named_parameters()}
    return {"spikes": spikes.detach(), "y": y.grad, **grads, **{k: v.clone() for k, v in layer.state_dict().items()}}


@pytest.mark.parametrize("norm", NORMS.names())
@pytest.mark.parametrize("neuron", [*NEURONS.names(), *USERS])
def test_every_method_trains_or_is_refused(neuron: str, norm: str) -> None:
    """Eager and the formulas agree; a state dict restores the layer; inspecting it changes nothing."""
    refused = 0
    for method in METHODS.names():
        if refusal(method, neuron, norm):
            refused += 1
            continue
        layer = layer_of(method, neuron, norm).double()
        twin = copy.deepcopy(layer)
        twin._run = ENGINES["formulas"]
        for seed in (0, 1):
            expected, actual = trained(layer, seed), trained(twin, seed)
            for key, value in expected.items():
                assert value.isfinite().all(), (method, key)
                torch.testing.assert_close(actual[key], value, rtol=1e-9, atol=1e-11, msg=lambda t, k=key: f"{k}: {t}")
        fresh = layer_of(method, neuron, norm).double()
        fresh.load_state_dict(layer.state_dict())
        y = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        before = {key: value.clone() for key, value in layer.state_dict().items()}
        statistics = layer_statistics(layer.inspect(y))
        assert all(value.isfinite().all() for value in statistics.values()), method
        assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items()), method
        assert torch.equal(layer.eval()(y), fresh.eval()(y)), method
    assert refused < len(METHODS.names())


def assert_the_compiled_engine_agrees(layer: SpikingNorm) -> None:
    twin = copy.deepcopy(layer)
    twin._run = ENGINES["compiled"]
    expected, actual = trained(layer, 0), trained(twin, 0)
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-9, atol=1e-11, msg=lambda t, k=key: f"{k}: {t}")


def test_the_compiled_engine_agrees_for_all_steps_at_once() -> None:
    assert_the_compiled_engine_agrees(layer_of("fixed_sg", "psn", "tdbn", time_steps=2).double())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "neuron"), PAIRS)
def test_the_compiled_engine_agrees_for_every_pair(method: str, neuron: str) -> None:
    if not refusal(method, neuron, "tdbn"):
        # GLIF's kernels of 2 steps recompute most.
        steps = 3 if neuron == "glif" else 2
        assert_the_compiled_engine_agrees(layer_of(method, neuron, "tdbn", time_steps=steps).double())


class Leaks(Neuron):
    """A leak for each step and channel, as GLIF has, and a count of its last state, as TrSG keeps."""

    axes: ClassVar[Mapping[str, str]] = {"leak": "TC"}
    follows_end: ClassVar[bool] = True

    def __init__(self, time_steps: int, channels: int) -> None:
        super().__init__(neuron_config("lif"), time_steps, channels, 1.0)
        self.leak = nn.Parameter(torch.linspace(0.2, 0.9, time_steps * channels).view(time_steps, channels))
        self.register_buffer("followed", torch.zeros(2))

    @override
    def values(self) -> dict[str, Tensor]:
        return {"leak": self.leak}

    @staticmethod
    @override
    def charge(x: Tensor, state: State, p: Values, o: Any) -> Tensor:
        return p["leak"] * state[0] + x

    @override
    def follow(self, total: Tensor, count: Tensor) -> None:
        self.followed.copy_(torch.stack([total, count]))


class Tired(Neuron):
    """Charges less after spikes, of which it keeps a trace: a second state."""

    def __init__(self, time_steps: int, channels: int) -> None:
        super().__init__(neuron_config("lif"), time_steps, channels, 1.0)
        self.leak = nn.Parameter(torch.tensor(0.6))

    @property
    @override
    def decay(self) -> Tensor:
        return self.leak

    @staticmethod
    @override
    def start(x: Tensor, p: Values, o: Any) -> State:
        return torch.zeros_like(x), torch.zeros_like(x)

    @staticmethod
    @override
    def charge(x: Tensor, state: State, p: Values, o: Any) -> Tensor:
        return p["decay"] * state[0] + x - 0.3 * state[1]

    @staticmethod
    @override
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        return u * (1 - s), 0.5 * state[1] + s


def test_the_compiled_engine_agrees_for_measured_potentials_and_two_states() -> None:
    layer = layer_of("ds_atgo", "lif", "tdbn", time_steps=2)
    layer.neuron = Tired(2, 2)
    assert_the_compiled_engine_agrees(layer.double())


def test_the_compiled_engine_agrees_for_values_of_steps_and_channels_and_the_last_state() -> None:
    layer = layer_of("fixed_sg", "lif", "tdbn", time_steps=2)
    layer.neuron = Leaks(2, 2)
    assert_the_compiled_engine_agrees(layer.double())
    trained(layer, 0)
    assert layer.neuron.followed.all()


@compiled_slowly
def test_the_input_may_be_the_same_at_every_step(engine: object) -> None:
    """A still image is fed once; the result is that of T copies, for every neuron."""
    y = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for neuron in NEURONS.names():
        layer = layer_of("fixed_sg", neuron, "tdbn").double().eval()
        layer._run = engine  # type: ignore[assignment]
        assert torch.equal(layer(y, static=True), layer(torch.cat([y] * 3))), neuron


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make compatibility`"


def test_a_neuron_that_emits_counts_fires_once_a_step() -> None:
    """The share of neurons that always fire counts steps, not spikes."""
    layer = layer_of("fixed_sg", "ilif", "tdbn").eval()
    y = torch.tensor([3.0, 0.0, 0.0]).view(3, 1, 1, 1).expand(3, 1, 2, 1)
    trace = layer.inspect(y.flatten(0, 1).view(3, 2, 1))
    assert trace.spikes.flatten(1)[:, 0].tolist() == [3, 0, 0]
    statistics = layer_statistics(trace)
    assert statistics["always_firing"] == 0
    assert statistics["firing_rate"][0] == 3


class Reversed(KLIF):
    """Gives its values in another order than its `axes`."""

    def values(self) -> dict[str, Tensor]:
        return dict(reversed(super().values().items()))


def test_values_are_taken_by_name() -> None:
    layer = layer_of("fixed_sg", "klif", "tdbn").double()
    assert isinstance(layer.neuron, KLIF)
    other = copy.deepcopy(layer)
    other.neuron = Reversed(layer.neuron.config, 3, 2, 1.0).double()  # type: ignore[arg-type]
    for run in (ENGINES["eager"], ENGINES["formulas"]):
        layer._run = other._run = run
        assert torch.equal(trained(layer, 0)["spikes"], trained(other, 0)["spikes"])


class Watched:
    """The formulas, which notes those that were called with a tensor that requires grad."""

    def __init__(self) -> None:
        self.called: dict[str, bool] = {}

    def __getattr__(self, name: str) -> Callable[..., object]:
        def formula(*arguments: object, **options: object) -> object:
            found = any(isinstance(one, Tensor) and one.requires_grad for one in tree_leaves(arguments))
            self.called[name] = self.called.get(name, False) or found
            return getattr(formulas, name)(*arguments, **options)

        return formula


def test_no_tensor_of_a_kernel_requires_grad() -> None:
    """torch.compile would compile the kernel a second time for it."""
    kernels: Any = Watched()
    for method in METHODS.names():
        layer = layer_of(method, "lif", "tdbn").double()
        layer._run = FusedEngine(kernels)
        trained(layer, 0)
    assert kernels.called == dict.fromkeys(["advance", "backward", "batch_statistics", "finish", "forward"], False)
