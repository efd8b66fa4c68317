"""Every neuron against arrays of released code: outputs, potentials, gradients, buffers.

See `tests/reference/plugins/README.md` for the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradspike.engine.base import Engine, EngineOptions
from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig
from gradspike.neurons.base import Neuron, build_neuron
from gradspike.surrogate import SURROGATES, UNIT_DSPIKE
from helpers.engines import compiled_slowly
from helpers.part_options import neuron_config
from helpers.plugin_arrays import SUMMED_ATOL, Case, assert_close, assert_spikes, batches, case, cases, part, stepped
from helpers.plugin_arrays import time_first as first

# The surrogates of the files by number, with the width that has their peak: h(0) = 1 / kappa.
SHAPES = {0: ("sigmoid", 1.0), 1: ("arctan", 1.0), 2: ("rectangular", 1.0), 3: ("triangular", 1.0)}


class Constant(Method):
    """One threshold and one width at all steps."""

    def __init__(self, threshold: Tensor | float, width: Tensor | float, x: Tensor, scales: bool) -> None:
        super().__init__(MethodConfig(name="constant"), x.shape[0], x.shape[2])
        self.threshold, self.width = torch.as_tensor(threshold), torch.as_tensor(width)
        self.scales_spikes = scales

    def plan(self, facts: LayerFacts) -> Plan:
        steps = facts.time_steps
        return Plan(self.threshold.float().expand(steps), self.width.float().expand(steps))


def tau(data: Case) -> float:
    """The decay factor of a case."""
    if "decay" in data:
        return float(data["decay"])
    return 1 - 1 / float(data["tau"])


def neuron_of(name: str, data: Case, x: Tensor, **options: object) -> Neuron:
    """A neuron for the layer of `x` [T, B, C, ...]."""
    return build_neuron(neuron_config(name, **options), x.shape[0], x.shape[2], float(data.get("v_threshold", 1.0)))


def resets(data: Case) -> dict[str, object]:
    v_reset = float(data["v_reset"])
    soft = math.isnan(v_reset)
    return {
        "reset": "soft" if soft else "hard",
        "v_reset": 0.0 if soft else v_reset,
        "decay_input": bool(data["decay_input"]),
        "detach_reset": bool(data["detach_reset"]),
    }


def compare(
    engine: Engine,
    neuron: Neuron,
    data: Case,
    shape: str = "rectangular",
    *,
    threshold: Tensor | float | None = None,
    width: Tensor | float = 1.0,
    scales: bool = False,
    training: bool = True,
    keys: tuple[str, str, str] = ("x", "grad_spikes", "spikes"),
    seen: str = "membrane",
) -> None:
    """Run a case and compare output, potential and the gradient of x; others are left in `.grad`."""
    x = first(data[keys[0]]).requires_grad_()
    method = Constant(data["v_threshold"] if threshold is None else threshold, width, x, scales)
    decay = neuron.decay
    facts = LayerFacts(x.shape[0], 1.0, torch.zeros(()) if decay is None else decay.detach(), training=training)
    surrogate = UNIT_DSPIKE if shape == "unit_dspike" else SURROGATES[shape]
    options = EngineOptions(surrogate)
    looking = LayerFacts(x.shape[0], 1.0, facts.scalar, training=training, gradients=False, updates=False)
    with torch.no_grad():
        trace = engine(x, neuron, method, looking, EngineOptions(surrogate, keep_membrane=True))
    assert trace.membrane is not None
    if seen in data:
        assert_close(trace.membrane, first(data[seen]), seen)
    output = engine(x, neuron, method, facts, options)
    if keys[2] == "spikes":
        assert_spikes(output.spikes, first(data["spikes"]))
    else:
        assert_close(output.spikes, first(data[keys[2]]), keys[2])
    if keys[1] in data:
        output.spikes.backward(first(data[keys[1]]))
        assert_close(x.grad, first(data["grad_x"]), "grad_x")


def parameter_grad(neuron: Neuron, name: str, expected: Tensor) -> None:
    """The gradient of one of the neuron's parameters."""
    assert_close(neuron.get_parameter(name).grad, expected.view_as(neuron.get_parameter(name)), name, atol=SUMMED_ATOL)


def set_parameter(neuron: Neuron, name: str, value: Tensor) -> None:
    """Give one of the neuron's parameters a value."""
    with torch.no_grad():
        own = neuron.get_parameter(name)
        own.copy_(value.view_as(own))


@compiled_slowly
@pytest.mark.parametrize("name", cases("sj_lif", lacks=("decay_logit",)))
def test_lif(engine: Engine, name: str) -> None:
    data = case("sj_lif", name)
    shape, width = SHAPES[int(data["surrogate"])]
    neuron = neuron_of("lif", data, first(data["x"]), decay=tau(data), **resets(data))
    compare(engine, neuron, data, shape, width=width)


@compiled_slowly
@pytest.mark.parametrize("name", cases("sj_lif", "decay_logit"))
def test_plif(engine: Engine, name: str) -> None:
    """SpikingJelly's stored value is the logit of 1 - tau."""
    data = case("sj_lif", name)
    shape, width = SHAPES[int(data["surrogate"])]
    neuron = neuron_of("plif", data, first(data["x"]), **resets(data))
    set_parameter(neuron, "decay_logit", -data["decay_logit"])
    compare(engine, neuron, data, shape, width=width)
    parameter_grad(neuron, "decay_logit", -data["grad_decay_logit"])


@compiled_slowly
@pytest.mark.parametrize("name", cases("klif", "x"))
def test_klif(engine: Engine, name: str) -> None:
    data = case("klif", name)
    shape, width = SHAPES[int(data["surrogate"])]
    options = {**resets(data), "k": float(data["k"]), "scale_reset": bool(data["scale_reset"])}
    neuron = neuron_of("klif", data, first(data["x"]), decay=tau(data), **options)
    compare(engine, neuron, data, shape, width=width, seen="scaled")
    parameter_grad(neuron, "k", data["grad_k"])
    potentials = stepped(neuron, first(data["x"]), first(data["spikes"]), float(data["v_threshold"]))
    scaled = torch.stack([u for u, _ in potentials])
    assert_close(scaled, torch.relu(data["k"] * first(data["membrane"])), "membrane")


GLIF_NAMES = {
    "glif": {"Vth": "threshold", "reVth": "reset"},
    "sj_glif": {"v_threshold": "threshold", "v_subreset": "reset", "linear_decay": "leak"},
}


@compiled_slowly
@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in GLIF_NAMES for name in cases(file, "param/alpha", "x")]
)
def test_glif(engine: Engine, file: str, name: str) -> None:
    data = case(file, name)
    x = first(data["x"])
    stored = part(data, "param")
    per = "channel" if stored["tau"].numel() > 1 else "layer"
    authors = file == "glif"
    fires = "above_threshold" if authors else "at_threshold"
    neuron = neuron_of("glif", data, x, per=per, fires=fires)
    names = {key: GLIF_NAMES[file].get(key, key) for key in stored}
    start = part(data, "start")
    for key, value in start.items():
        own = neuron.get_parameter(f"stored.{names[key]}")
        assert_close(own, value.view_as(own), f"start of {key}")
    for key, value in stored.items():
        set_parameter(neuron, f"stored.{names[key]}", value)
    compare(engine, neuron, data, "rectangular" if authors else "sigmoid", threshold=1.0)
    for key, value in part(data, "grad").items():
        parameter_grad(neuron, f"stored.{names[key]}", value)


@compiled_slowly
@pytest.mark.parametrize("name", cases("clif", "x"))
def test_clif(engine: Engine, name: str) -> None:
    data = case("clif", name)
    neuron = neuron_of("clif", data, first(data["x"]), decay=tau(data), in_place=name.startswith("in_place"))
    compare(engine, neuron, data, width=data["width"])
    states = stepped(neuron, first(data["x"]), first(data["spikes"]), float(data["v_threshold"]))
    expected = first(data["complementary"])
    if name.startswith("in_place"):  # the file has m before it becomes sig(m)
        expected = expected.sigmoid()
    assert_close(torch.stack([m for _, (_, m) in states]), expected, "complementary")


@compiled_slowly
@pytest.mark.parametrize("name", cases("ilif", "x"))
def test_ilif(engine: Engine, name: str) -> None:
    data = case("ilif", name)
    options = {"max_count": int(data["max_count"]), "detach_reset": bool(data["detach_reset"])}
    compare(engine, neuron_of("ilif", data, first(data["x"]), decay=tau(data), **options), data)


@compiled_slowly
@pytest.mark.parametrize("name", cases("re_loss", "x"))
def test_mpr(engine: Engine, name: str) -> None:
    data = case("re_loss", name)
    compare(engine, neuron_of("mpr", data, first(data["x"])), data, threshold=1.0)


@compiled_slowly
@pytest.mark.parametrize("name", cases("trsg", "decay_logit"))
def test_trsg(engine: Engine, name: str) -> None:
    """Three batches in a row, with the running mean after each, then evaluation."""
    data = case("trsg", name)
    x = first(data["b0/x"])
    momentum = float(data["momentum"])
    options = {"decay_input": bool(data["decay_input"]), "momentum": min(momentum, 1 - momentum)}
    neuron = neuron_of("trsg", data, x, **options)
    set_parameter(neuron, "decay_logit", -data["decay_logit"])
    raw = data["threshold_raw"].clone().requires_grad_()
    assert batches(data)
    for batch in batches(data):
        neuron.zero_grad()
        raw.grad = None
        theta = torch.nn.functional.softplus(raw)
        keys = ("x", "grad_output", "output")
        compare(engine, neuron, batch, threshold=theta, width=theta, scales=True, keys=keys)
        parameter_grad(neuron, "decay_logit", -batch["grad_decay_logit"])
        assert_close(raw.grad, batch["grad_threshold_raw"], "grad_threshold_raw", atol=SUMMED_ATOL)
        assert_close(neuron.get_buffer("running_mean"), batch["running_mean"].squeeze(), "running_mean")
    neuron.eval()
    theta = torch.nn.functional.softplus(raw.detach())
    ended = part(data, "eval")
    compare(engine, neuron, ended, threshold=theta, width=theta, scales=True, training=False, keys=("x", "", "output"))


@compiled_slowly
@pytest.mark.parametrize("name", cases("sltt", "grad_x_bptt"))
@pytest.mark.parametrize("gradient", ["sltt", "bptt"])
def test_sltt(engine: Engine, gradient: str, name: str) -> None:
    data = case("sltt", name)
    shape, width = SHAPES[int(data["surrogate"])]
    reset = "soft" if bool(data["soft_reset"]) else "hard"
    neuron = neuron_of("lif", data, first(data["x"]), decay=tau(data), reset=reset, gradient=gradient)
    if gradient == "bptt":
        data["grad_x"] = data["grad_x_bptt"]
    compare(engine, neuron, data, shape, width=width)


@compiled_slowly
@pytest.mark.parametrize("name", cases("psn", "weight"))
def test_psn(engine: Engine, name: str) -> None:
    """Which of the three it is follows from the shape of the weights and from the presence of a mask."""
    data = case("psn", name)
    kind = "sliding_psn" if data["weight"].ndim == 1 else "masked_psn" if "mask_lambda" in data else "psn"
    options: dict[str, object] = {"k": int(data["order"])} if "order" in data else {}
    if "mask_lambda" in data:
        options["mask"] = float(data["mask_lambda"])
    neuron = neuron_of(kind, data, first(data["x"]), **options)
    for key in ("weight", "bias"):
        if f"start_{key}" in data:
            assert_close(neuron.get_parameter(key).flatten(), data[f"start_{key}"].flatten(), f"start of {key}")
        set_parameter(neuron, key, data[key])
    compare(engine, neuron, data, "arctan", threshold=1.0, seen="charge")
    for key in ("weight", "bias"):
        parameter_grad(neuron, key, data[f"grad_{key}"])


ABOVE: dict[str, Callable[[Case], dict[str, object]]] = {
    "ms_resnet": lambda data: {},
    "tab": lambda data: {"shape": "triangular"},
    "tet": lambda data: {"shape": "triangular", "width": data["gamma"]},
    "im_loss": lambda data: {
        "shape": "unit_dspike",
        "threshold": data["threshold"],
        "width": data["temperature"],
    },
}
"""Files with leaky neurons that fire above the threshold, and reset to 0."""


@compiled_slowly
@pytest.mark.parametrize(
    ("file", "name"),
    [
        (file, name)
        for file in ("tab", "tet", "im_loss", "ms_resnet")
        for name in cases(file, "x", "grad_spikes", "decay")
    ],
)
def test_lif_that_fires_above_the_threshold(engine: Engine, file: str, name: str) -> None:
    data = case(file, name)
    options = {"fires": "above_threshold", "detach_reset": file == "ms_resnet"}
    neuron = neuron_of("lif", data, first(data["x"]), decay=tau(data), **options)
    compare(engine, neuron, data, **ABOVE[file](data))  # type: ignore[arg-type]
