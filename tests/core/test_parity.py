"""Parity with arrays computed by the authors' released code; tests/reference/README.md describes them.

Cases are discovered by the prefixes in the files: set GRADSPIKE_REFERENCE to test another folder in the same format.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradspike.engine import eager
from gradspike.engine.base import Engine, EngineOptions, EngineOutput
from gradspike.methods.base import LayerFacts, Method, build_method
from gradspike.methods.ds_atgo import DsAtgo
from gradspike.methods.options import MethodConfig
from gradspike.norms.options import NormConfig
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.surrogate import SURROGATES
from helpers.engines import GivenDecay, every_engine
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config
from helpers.plugin_arrays import fold, time_first

REFERENCE = Path(os.environ.get("GRADSPIKE_REFERENCE") or Path(__file__).parents[1] / "reference")
RTOL, ATOL = 1e-4, 1e-5
# A spike may differ only if the potential is this close to its threshold.
TIE = 1e-5


def needs(name: str) -> pytest.MarkDecorator:
    there = (REFERENCE / f"{name}.npz").is_file()
    return pytest.mark.skipif(not there, reason=f"no {name}.npz in {REFERENCE} (GRADSPIKE_REFERENCE)")


@cache
def load(name: str) -> dict[str, Tensor]:
    path = REFERENCE / f"{name}.npz"
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays.files}


def case(name: str, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix + "/"): value for key, value in load(name).items() if key.startswith(prefix + "/")}


def prefixes(name: str, start: str, end: str) -> list[str]:
    """Names of the cases: the part before `end` of keys that begin with `start`."""
    return sorted(
        key.removesuffix(end) for key in load(name) if key.startswith(start) and key.endswith(end) and key != end
    )


NEURONS = prefixes("mpd_agl", "neuron_", "/x")
LAYERS = prefixes("mpd_agl", "conv_", "/x")
ATGO = prefixes("ds_atgo", "", "/b0/x")


def unfold(x: Tensor, time_steps: int) -> Tensor:
    return x.unflatten(0, (time_steps, -1)).transpose(0, 1)


def assert_close(actual: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        actual.detach().to(expected.dtype), expected, rtol=RTOL, atol=ATOL, msg=lambda text: f"{what}: {text}"
    )


def assert_spikes(actual: Tensor, expected: Tensor, u: Tensor, thresholds: Tensor) -> None:
    """All [T, B, ...]; thresholds [T]."""
    distance = (u - thresholds.view(-1, *[1] * (u.ndim - 1))).abs()
    assert not ((actual != expected) & (distance >= TIE)).any()


def decay_of(data: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    if "decay" in data:
        return data["decay"], None
    logit = data["decay_logit"].clone().requires_grad_()
    return torch.sigmoid(logit), logit


def fire(
    engine: Engine,
    x: Tensor,
    decay: Tensor,
    method: Method,
    v_threshold: float,
    training: bool = True,
    gamma: Tensor | None = None,
) -> tuple[EngineOutput, Tensor]:
    """The output of the engine, and the potential of the reference engine."""
    facts = LayerFacts(
        time_steps=x.shape[0],
        v_threshold=v_threshold,
        scalar=decay.detach(),
        gamma_mean=gamma,
        training=training,
        gradients=training,
    )
    options = EngineOptions(SURROGATES["rectangular"])
    looking_on = replace(facts, updates=False)
    same = GivenDecay(decay.detach(), len(x))
    seen = eager.run(x.detach(), same, method, looking_on, replace(options, keep_membrane=True))
    assert seen.membrane is not None
    return engine(x, GivenDecay(decay, len(x)), method, facts, options), seen.membrane


def check_step(data: dict[str, Tensor], fired: tuple[EngineOutput, Tensor], x: Tensor, logit: Tensor | None) -> None:
    """Spikes forward, then the gradients of x and of the decay logit."""
    output, membrane = fired
    assert_spikes(output.spikes, time_first(data["spikes"]), membrane, output.thresholds)
    if "grad_spikes" not in data:
        return
    if logit is not None:
        logit.grad = None
    output.spikes.backward(time_first(data["grad_spikes"]), retain_graph=True)
    assert x.grad is not None
    assert_close(x.grad, time_first(data["grad_x"]), "grad_x")
    if logit is not None:
        assert logit.grad is not None
        assert_close(logit.grad, data["grad_decay_logit"], "grad_decay_logit")


@pytest.mark.parametrize(
    ("file", "cases"),
    [
        pytest.param("mpd_agl", {*NEURONS, *LAYERS}, marks=needs("mpd_agl")),
        pytest.param("ds_atgo", {*ATGO, "traj"}, marks=needs("ds_atgo")),
    ],
)
def test_every_case_of_the_files_is_tested(file: str, cases: set[str]) -> None:
    assert {key.split("/")[0] for key in load(file)} == cases


@every_engine
@pytest.mark.parametrize("name", NEURONS)
def test_mpd_agl_neuron(engine: Engine, name: str) -> None:
    data = case("mpd_agl", name)
    v_threshold = float(data["v_threshold"])
    x = time_first(data["x"]).requires_grad_()
    decay, logit = decay_of(data)
    fixed = data["gamma_mean"] == -1
    method = build_method(method_config("fixed_sg" if fixed else "mpd_agl"), x.shape[0], x.shape[2])
    gamma = None if fixed else data["gamma_mean"]
    check_step(data, fire(engine, x, decay, method, v_threshold, gamma=gamma), x, logit)


@every_engine
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_mpd_agl_layer(engine: Engine, name: str, static: bool) -> None:
    """The whole layer; `static` checks the statistics of repeats with a first step that is fed T times."""
    data = case("mpd_agl", name)
    time_steps, channels = data["x"].shape[1], data["bn_weight"].numel()
    plif = "decay_logit" in data
    layer = SpikingNorm(
        channels,
        LayerContext(
            time_steps,
            neuron_config("plif") if plif else neuron_config("lif", decay=float(data["decay"])),
            method_config("mpd_agl", v_threshold=float(data["v_threshold"])),
            norm_config("tdbn", alpha=float(data["alpha"])),
        ),
    )
    with torch.no_grad():
        layer.norm.weight.copy_(data["bn_weight"])
        layer.norm.bias.copy_(data["bn_bias"])
        if plif:
            layer.neuron.get_parameter("decay_logit").copy_(data["decay_logit"])
    if static:
        check_static(layer, F.conv2d(data["x"][:, 0], data["conv_weight"], padding=1))
        return

    x = data["x"].clone().requires_grad_()
    weight = data["conv_weight"].clone().requires_grad_()
    y = F.conv2d(fold(x), weight, padding=1)
    trace = layer.inspect(y.detach())
    spikes = layer(y)
    assert_spikes(unfold(spikes, time_steps).transpose(0, 1), time_first(data["spikes"]), trace.u, trace.thresholds)
    spikes.backward(fold(data["grad_spikes"]))
    grads = {
        "grad_x": x.grad,
        "grad_conv_weight": weight.grad,
        "grad_bn_weight": layer.norm.weight.grad,
        "grad_bn_bias": layer.norm.bias.grad,
    }
    if plif:
        grads["grad_decay_logit"] = layer.neuron.get_parameter("decay_logit").grad
    for key, grad in grads.items():
        assert grad is not None, key
        assert_close(grad, data[key], key)
    assert_close(layer.norm.running_mean, data["running_mean"], "running_mean")
    assert_close(layer.norm.running_var, data["running_var"], "running_var")

    layer.train()
    assert_close(unfold(layer.norm(y, update=False), time_steps), data["current"], "current")
    layer.eval()
    assert_close(unfold(layer.norm(y), time_steps), data["eval_current"], "eval_current")
    trace = layer.inspect(y.detach())
    assert_spikes(trace.spikes, time_first(data["eval_spikes"]), trace.u, trace.thresholds)
    assert torch.equal(layer(y), trace.spikes.flatten(0, 1))


def check_static(layer: SpikingNorm, y: Tensor) -> None:
    twin = copy.deepcopy(layer)
    repeated = torch.cat([y] * layer.time_steps)
    assert torch.equal(layer(y, static=True), twin(repeated))
    for key, value in twin.state_dict().items():
        assert_close(layer.state_dict()[key], value, key)


@every_engine
@pytest.mark.parametrize("name", ATGO)
def test_ds_atgo_neuron(engine: Engine, name: str) -> None:
    data = case("ds_atgo", name)
    shape = data["b0/x"].shape
    config = method_config("ds_atgo")
    method = build_method(config, shape[1], shape[2])
    assert isinstance(method, DsAtgo)
    decay, logit = decay_of(data)
    batch = 0
    while f"b{batch}/x" in data:
        part = case("ds_atgo", f"{name}/b{batch}")
        x = time_first(part["x"]).requires_grad_()
        output, membrane = fire(engine, x, decay, method, config.v_threshold)
        assert_close(output.thresholds, part["thresholds"], "thresholds")
        assert_close(output.widths, part["widths"], "widths")
        assert_close(method.running_threshold, part["running_threshold"], "running_threshold")
        check_step(part, (output, membrane), x, logit)
        batch += 1
    assert batch > 0
    part = case("ds_atgo", f"{name}/eval")
    x = time_first(part["x"])
    output, membrane = fire(engine, x, decay, method, config.v_threshold, training=False)
    assert torch.equal(output.thresholds, method.running_threshold)
    check_step(part, (output, membrane), x, None)


class SmallNet(nn.Module):
    """conv - norm - neuron, twice; average pool 2; linear. Modules are named as in the files."""

    def __init__(self, init: dict[str, Tensor], method: MethodConfig, norm: NormConfig, time_steps: int) -> None:
        super().__init__()
        context = LayerContext(time_steps, neuron_config("plif"), method, norm)
        first, second, out = (init[f"{name}.layer.weight"].shape for name in "abf")
        self.time_steps = time_steps
        self.a = nn.Conv2d(first[1], first[0], 3, padding=1, bias=False)
        self.na = context.layer(first[0])
        self.b = nn.Conv2d(second[1], second[0], 3, padding=1, bias=False)
        self.nb = context.layer(second[0])
        self.f = nn.Linear(out[1], out[0])

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, C, H, W] to logits averaged over time."""
        x = self.nb(self.b(self.na(self.a(fold(x)))))
        return self.f(F.avg_pool2d(x, 2).flatten(1)).unflatten(0, (self.time_steps, -1)).mean(0)


def own_key(key: str) -> str:
    """The state key of this package for one of the files."""
    name, *rest = key.split(".")
    if rest[0] == "bn":
        return f"n{name}.norm.{rest[-1]}"
    if rest[0] == "neuron":
        return f"{name}.neuron.decay_logit"
    if rest[0] == "layer":
        return f"{name}.{rest[-1]}"
    raise KeyError(key)


@every_engine
@pytest.mark.parametrize(
    ("file", "prefix", "method", "norm", "smoothing"),
    [
        pytest.param("mpd_agl_training", "", "mpd_agl", "tdbn", 0.0, marks=needs("mpd_agl_training")),
        pytest.param("ds_atgo", "traj/", "ds_atgo", "tdbn_gain", 0.1, marks=needs("ds_atgo")),
    ],
    ids=["mpd_agl", "ds_atgo"],
)
def test_training_trace(engine: Engine, file: str, prefix: str, method: str, norm: str, smoothing: float) -> None:
    init, final = case(file, f"{prefix}init"), case(file, f"{prefix}final")
    xs, ys, losses = (load(file)[prefix + key] for key in ("x", "y", "loss"))
    time_steps = xs.shape[2]
    model = SmallNet(init, method_config(method), norm_config(norm), time_steps)
    unset = model.load_state_dict({own_key(key): value for key, value in init.items()}, strict=False)
    assert not unset.unexpected_keys
    assert all(key.endswith("running_threshold") for key in unset.missing_keys)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for x, y, expected in zip(xs, ys, losses, strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y, label_smoothing=smoothing)
        assert_close(loss, expected, "loss")
        loss.backward()
        optimizer.step()

    state = model.state_dict()
    for key, expected in final.items():
        if key.startswith("running_threshold_"):
            actual = state[f"n{key[-1]}.method.running_threshold"]
        else:
            actual = state[own_key(key)]
        assert_close(actual, expected, key)
