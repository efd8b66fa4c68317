"""Formulas of methods with a learned threshold, a learned width or a loss, beside `test_parity_methods.py`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from gradspike.collected import collect_losses
from gradspike.config.compose import load_config
from gradspike.engine import eager
from gradspike.engine.base import Engine, EngineOptions
from gradspike.errors import ConfigError
from gradspike.methods.base import LayerFacts, Method, build_method, set_progress
from gradspike.methods.mpd_sgr import share_inside
from gradspike.methods.options import MethodConfig
from gradspike.neurons.base import build_neuron
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.build import build_model
from gradspike.training.firing_rate import FiringRate
from gradspike.training.probe.quantities import layer_statistics
from helpers import method_checks
from helpers.engines import ENGINES
from helpers.method_checks import C, T, descend, make_input, make_layer, method_config, step
from helpers.part_options import neuron_config


def traced(method: Method, x: Tensor, run: Engine = eager.run, **neuron: object) -> tuple[Tensor, Tensor]:
    """Spikes, and the gradient of x for the gradient of ones."""
    own = build_neuron(neuron_config("lif", **neuron), *x.shape[:1], x.shape[2], method.config.v_threshold)
    assert own.decay is not None
    x = x.clone().requires_grad_()
    facts = LayerFacts(x.shape[0], method.config.v_threshold, own.decay.detach().to(x.dtype))
    spikes = run(x, own, method, facts, EngineOptions(method.shape)).spikes
    spikes.sum().backward()
    assert x.grad is not None
    return spikes.detach(), x.grad


@pytest.fixture
def x() -> Tensor:
    return 1.2 * torch.randn(T, 6, C, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("run", [eager.run, ENGINES["formulas"]], ids=["eager", "formulas"])
def test_asgl_without_noise_is_psg(x: Tensor, run: Engine) -> None:
    """With p = 0 and V_th = 1: the same spikes and gradients. Otherwise ASGL's output is V_th times PSG's."""
    psg = build_method(method_config("psg", v_threshold=1.0, width=0.8), T, C).double()
    asgl = build_method(method_config("asgl", surrogate="rectangular", alpha=0.8, p=0.0), T, C).double()
    assert asgl.analog_share is None
    expected, actual = traced(psg, x, run), traced(asgl, x, run)
    assert torch.equal(actual[0], expected[0])
    torch.testing.assert_close(actual[1], expected[1])
    # dL/dkappa = dL/d(raw) / (d kappa / d raw), with kappa = 1e-3 + softplus(raw) and kappa = exp(-raw).
    by_psg = psg.get_parameter("width_raw").grad / psg.get_parameter("width_raw").sigmoid()
    by_asgl = asgl.get_parameter("alpha_raw").grad / -(-asgl.get_parameter("alpha_raw")).exp()
    torch.testing.assert_close(by_asgl, by_psg)

    psg = build_method(method_config("psg", v_threshold=0.5, width=0.8), T, C).double()
    asgl = build_method(method_config("asgl", v_threshold=0.5, surrogate="rectangular", alpha=0.8, p=0.0), T, C)
    assert torch.equal(traced(asgl.double(), x, run)[0], 0.5 * traced(psg, x, run)[0])


def test_share_of_noise_follows_the_training(x: Tensor) -> None:
    config = method_config("asgl", p=0.4, gamma=0.5, milestones=[0.2, 0.6])
    method = build_method(config, T, C).double()
    for progress, share in ((0.0, 0.4), (0.2, 0.4), (0.21, 0.2), (0.6, 0.2), (0.61, 0.1), (1.0, 0.1)):
        set_progress(torch.nn.Sequential(method), progress)
        assert float(method.analog_share) == pytest.approx(share)
    set_progress(method, 0.0)
    torch.manual_seed(0)
    spikes, _ = traced(method, x)
    analog = ((spikes > 0) & (spikes < 1)).double().mean()
    assert analog.item() == pytest.approx(0.4, abs=0.05)
    assert "progress" not in method.state_dict()


@pytest.mark.parametrize("surrogate", ["rectangular", "sigmoid"])
@pytest.mark.parametrize("run", [eager.run, ENGINES["formulas"]], ids=["eager", "formulas"])
def test_a_width_for_each_neuron(x: Tensor, surrogate: str, run: Engine) -> None:
    """Equal widths give the layer of widths per channel; the gradient of such a width is the sum over its neurons."""
    options = {"surrogate": surrogate, "alpha": 0.8, "p": 0.0}
    neurons = build_method(method_config("asgl", width_per="neuron", **options), T, C).double()
    neurons.set_space((5,))
    channels = build_method(method_config("asgl", width_per="channel", **options), T, C).double()
    torch.testing.assert_close(traced(neurons, x, run), traced(channels, x, run))
    raw, grad = neurons.get_parameter("alpha_raw"), channels.get_parameter("alpha_raw").grad
    assert raw.shape == (C, 5)
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad.sum(1), grad)
    assert raw.grad[0].unique().numel() > 1

    # The gradient is that of the network that emits the primitive, for each width.
    with torch.no_grad():
        raw.add_(0.3 * torch.randn(raw.shape, generator=torch.Generator().manual_seed(1), dtype=raw.dtype))
    smooth = EngineOptions(neurons.shape, smooth=True)

    def emitted(value: Tensor) -> Tensor:
        neuron = build_neuron(neuron_config("lif"), T, C, 1.0).double()
        twin = copy.deepcopy(neurons)
        del twin._parameters["alpha_raw"]
        twin.alpha_raw = value
        return run(x[:, :1], neuron, twin, LayerFacts(T, 1.0, neuron.decay), smooth).spikes

    value = raw.detach().clone().requires_grad_()
    if surrogate == "sigmoid":
        assert torch.autograd.gradcheck(emitted, (value,))
    emitted(value).sum().backward()
    assert value.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "check",
    [
        method_checks.check_binary_and_typed,
        method_checks.check_learning,
        method_checks.check_state_dict,
        method_checks.check_permutation,
    ],
)
def test_the_contract_with_a_width_for_each_neuron(
    check: Callable[[MethodConfig], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sized(config: MethodConfig, **options: Any) -> SpikingNorm:
        layer = make_layer(config, **options)
        layer.method.set_space((method_checks.SIDE, method_checks.SIDE))
        return layer

    monkeypatch.setattr(method_checks, "make_layer", sized)
    # Wide, so that every width sees a potential inside its window.
    check(method_config("asgl", surrogate="sigmoid", width_per="neuron", alpha=1.0, p=0.0))


def test_a_network_with_a_width_for_each_neuron() -> None:
    """It is built for the size of the images; the probe shows the mean of the widths and their spread."""
    words = ["method=asgl", "method.width_per=neuron", "method.p=0", "model.width=4", "dataset=digits", "time_steps=2"]
    model = build_model(load_config([*words, "engine=compiled"]))
    layers = [layer for layer in model.modules() if isinstance(layer, SpikingNorm)]
    shapes = [tuple(layer.method.alpha_raw.shape) for layer in layers]
    assert shapes[0] == (layers[0].channels, 8, 8)
    assert len(set(shapes)) > 1
    twin = build_model(load_config([*words, "engine=eager"]))
    twin.load_state_dict(model.state_dict())
    images = torch.rand(3, 1, 8, 8)
    for network in (model, twin):
        network(images).square().sum().backward()
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    with torch.no_grad():
        layers[0].method.alpha_raw[0, 0, 0] = 1.0
    statistics = layer_statistics(layers[0].inspect(torch.rand(2 * 3, layers[0].channels, 8, 8)))
    assert statistics["kappa_std"].min() > 0
    assert 4.0 < statistics["kappa"][0] < 20.0


def test_width_of_asgl_starts_where_asked_and_can_return_from_its_bound() -> None:
    sigmoid = build_method(method_config("asgl", alpha=2.5), T, C)
    assert sigmoid.width.item() == pytest.approx(10.0)
    with torch.no_grad():
        sigmoid.get_parameter("alpha_raw").fill_(-1.0)
    assert sigmoid.width.item() == pytest.approx(1e4)
    sigmoid.width.backward()
    assert sigmoid.get_parameter("alpha_raw").grad < 0
    rectangle = build_method(method_config("asgl", surrogate="rectangular", alpha=2.5), T, C)
    assert rectangle.width.item() == pytest.approx(2.5)


def test_diet_snn_by_hand() -> None:
    """One step, z = u / theta - 1, h = 0.3 max(0, 1 - |z|): ds/du = h / theta, ds/dtheta = -h u / theta^2."""
    method = build_method(method_config("diet_snn", v_threshold=0.8), 1, 1)
    x = torch.tensor([0.2, 0.7, 1.0, 2.0]).view(1, 4, 1)
    spikes, grad = traced(method, x, fires="above_threshold", reset="soft")
    assert spikes.flatten().tolist() == [0, 0, 1, 1]
    slopes = [0.3 * max(0.0, 1 - abs(u / 0.8 - 1)) for u in x.flatten().tolist()]
    assert grad.flatten().tolist() == pytest.approx([slope / 0.8 for slope in slopes])
    by_threshold = -sum(slope * u / 0.8**2 for slope, u in zip(slopes, x.flatten().tolist(), strict=True))
    assert method.get_parameter("threshold").grad == pytest.approx(by_threshold, rel=1e-5)


def test_dspike_by_hand() -> None:
    """One step: ds/du = b (1 - tanh(b v)^2) / (2 tanh(b / 2)) for |v| <= 1/2, else 0."""
    method = build_method(method_config("dspike", temperature=4.0), 1, 1)
    x = torch.tensor([-0.1, 0.2, 0.5, 0.9, 1.1]).view(1, 5, 1)
    _, grad = traced(method, x)
    expected = [
        4 * (1 - math.tanh(4 * (u - 0.5)) ** 2) / (2 * math.tanh(2)) if abs(u - 0.5) <= 0.5 else 0.0
        for u in x.flatten().tolist()
    ]
    assert grad.flatten().tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.4, 0.2), (-1.0, 1.3)])
def test_share_inside_the_window(mean: float, std: float) -> None:
    normal = NormalDist(mean, std)
    values = torch.tensor([mean, std**2], dtype=torch.float64)
    assert share_inside(*values, 0.5, 0.8) == pytest.approx(normal.cdf(0.9) - normal.cdf(0.1))


def test_loss_of_mpd_sgr_lowers_the_share() -> None:
    layer = make_layer(method_config("mpd_sgr", weight=2.0))
    losses = descend(layer, lr=0.5, steps=20)
    u = layer.inspect(make_input()).u.flatten(1)
    expected = 2 * share_inside(u.mean(1), u.var(1, correction=0), 0.5, 1.0).mean()
    assert losses[-1] < 0.8 * losses[0]
    assert expected < losses[0]


def test_firing_rate_counts_scaled_spikes() -> None:
    layer = make_layer(method_config("trsg", v_threshold=3.0)).eval()
    rate = FiringRate(torch.nn.Sequential(layer))
    rate.start()
    spikes = layer(make_input())
    assert spikes.max().item() == pytest.approx(3.0)
    assert rate.stop("val")["val/firing_rate"] == pytest.approx((spikes > 0).float().mean().item())


def test_learned_thresholds_move() -> None:
    for name in ("ltmd", "trsg", "diet_snn"):
        layer = make_layer(method_config(name))
        before = layer.inspect(make_input()).thresholds[0].item()
        step(layer, make_input())
        torch.optim.SGD(layer.parameters(), lr=0.01).step()
        assert layer.inspect(make_input()).thresholds[0].item() != before, name


@pytest.mark.parametrize("on", ["current", "potential"])
def test_losses_of_im_loss(on: str) -> None:
    """Collecting the loss does not change the spikes, and the norm sees the batch once."""
    config = method_config("im_loss", loss_on=on, weight=0.5)
    plain, layer = make_layer(config), make_layer(config)
    y = make_input().requires_grad_()
    with collect_losses() as extra:
        spikes = layer(y)
    torch.testing.assert_close(spikes, plain(make_input()))
    assert layer.norm is not None
    assert plain.norm is not None
    torch.testing.assert_close(layer.norm.running_mean, plain.norm.running_mean)
    (loss,) = extra.losses
    u = layer.inspect(make_input()).u
    means = u.flatten(1).mean(1)
    kept = layer.neuron.decay * u[:-1] * (u[:-1] < 0.5)
    current = torch.cat([u[:1], u[1:] - kept])
    expected = (current.mean() - 0.5 / T).square() if on == "current" else (means - 0.5).square().mean()
    torch.testing.assert_close(loss, 0.5 * expected)
    loss.backward()
    assert y.grad is not None
    assert on == "current" or y.grad.abs().sum() > 0  # a batch norm fixes the mean of its output


def test_the_probe_shows_what_methods_name() -> None:
    y = make_input()
    for config, expected in (
        (method_config("asgl", p=0.25), {"analog_share": 0.25}),
        (method_config("asgl", p=0.0), {}),
        (method_config("dspike", temperature=2.0, choose_every=1), {"temperature": 2.0}),
        (method_config("im_loss", loss_on="potential"), {"temperature": 3.0}),
    ):
        trace = make_layer(config).inspect(y)
        assert {name: value.item() for name, value in trace.own.items()} == pytest.approx(expected)
        assert trace.own.items() <= layer_statistics(trace).items()
    layer = make_layer(method_config("im_loss"))
    assert layer.norm is not None
    with torch.no_grad():
        layer.norm.bias.fill_(0.3)
    assert layer.inspect(y).own["current_mean"].item() == pytest.approx(0.3, abs=1e-6)
    layer.method.quantities = lambda: {"theta": torch.tensor(1.0)}
    with pytest.raises(ConfigError, match="the name 'theta', which the probe uses itself"):
        layer_statistics(layer.inspect(y))


def test_temperature_of_im_loss_grows() -> None:
    method = build_method(method_config("im_loss", temperature=1.0, temperature_end=10.0), T, C)
    facts = LayerFacts(T, 0.5, torch.tensor(0.2))
    for progress, temperature in ((0.0, 1.0), (0.5, math.sqrt(10)), (1.0, 10.0)):
        set_progress(method, progress)
        assert method.plan(facts).widths.tolist() == pytest.approx([temperature] * T)
