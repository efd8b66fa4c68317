"""Methods against arrays of released code: outputs, potentials and all gradients.

See `tests/reference/plugins/README.md` for the files.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradspike.collected import collect_losses
from gradspike.engine.base import Engine, EngineOptions
from gradspike.methods.base import LayerFacts, Method, build_method
from gradspike.neurons.base import Neuron, build_neuron
from gradspike.spiking_norm import LayerContext
from helpers.engines import compiled_slowly
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config
from helpers.plugin_arrays import (
    SUMMED_ATOL,
    Case,
    assert_close,
    assert_spikes,
    batches,
    case,
    cases,
    part,
    scaled_atol,
)
from helpers.plugin_arrays import time_first as first


def parts_of(x: Tensor, method: tuple[str, dict[str, object]], neuron: tuple[str, dict[str, object]]) -> tuple:
    """Method and neuron for a layer of `x` [T, B, C, ...]."""
    config = method_config(method[0], **method[1])
    return (
        build_method(config, x.shape[0], x.shape[2]),
        build_neuron(neuron_config(neuron[0], **neuron[1]), x.shape[0], x.shape[2], config.v_threshold),
    )


def facts_of(x: Tensor, method: Method, neuron: Neuron, **more: bool) -> LayerFacts:
    decay = neuron.decay
    assert decay is not None
    return LayerFacts(x.shape[0], method.config.v_threshold, decay.detach(), **more)


def run(
    engine: Engine, x: Tensor, method: Method, neuron: Neuron, data: Case, keys: tuple[str, str], **more: bool
) -> Tensor:
    """Compare the output and, if the case has them, potentials and the gradient of the current.

    keys: the output and its gradient. A neuron that follows its last state would see two passes for one, so
    `test_parity_neurons.py` compares its potentials.
    """
    x = x.clone().requires_grad_()
    facts = facts_of(x, method, neuron, **more)
    if "membrane" in data and not neuron.follows_end:
        trace = engine(x.detach(), neuron, method, facts, EngineOptions(method.shape, keep_membrane=True))
        assert_close(trace.membrane, first(data["membrane"]), "membrane")
    result = engine(x, neuron, method, facts, EngineOptions(method.shape))
    output = result.spikes
    if keys[0] == "spikes":
        assert_spikes(output, first(data["spikes"]))
    else:
        assert_close(output, first(data[keys[0]]), keys[0])
        if "spikes" in data:
            theta = result.thresholds.view(-1, *[1] * (x.ndim - 1))
            assert_close(output / theta, first(data["spikes"]), "spikes")
    if keys[1]:
        output.backward(first(data[keys[1]]))
        assert_close(x.grad, first(data["grad_x"]), "grad_x")
    return output


def set_to(parameter: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value.view_as(parameter))


def gradient(parameter: Tensor, expected: Tensor, what: str) -> None:
    assert_close(parameter.grad, expected.view_as(parameter), what, atol=SUMMED_ATOL)


@compiled_slowly
@pytest.mark.parametrize("name", cases("ltmd", "threshold_raw", "spikes"))
def test_ltmd(engine: Engine, name: str) -> None:
    data = case("ltmd", name)
    x = first(data["x"])
    options = {"decay": float(data["decay"]), "fires": "above_threshold"}
    method, neuron = parts_of(x, ("ltmd", {}), ("lif", options))
    set_to(method.threshold_raw, data["threshold_raw"])
    assert_close(method.threshold, data["threshold"].squeeze(), "threshold")
    run(engine, x, method, neuron, data, ("spikes", "grad_spikes"))
    gradient(method.threshold_raw, data["grad_threshold_raw"], "grad_threshold_raw")


@compiled_slowly
@pytest.mark.parametrize("name", cases("trsg", "decay_logit"))
def test_trsg(engine: Engine, name: str) -> None:
    """Three batches in a row, with the running mean after each, then evaluation."""
    data = case("trsg", name)
    momentum = float(data["momentum"])
    options = {"decay_input": bool(data["decay_input"]), "momentum": min(momentum, 1 - momentum)}
    method, neuron = parts_of(first(data["b0/x"]), ("trsg", {}), ("trsg", options))
    set_to(neuron.decay_logit, -data["decay_logit"])
    set_to(method.threshold_raw, data["threshold_raw"])
    assert_close(method.threshold, data["threshold"].squeeze(), "threshold")
    assert batches(data)
    for batch in batches(data):
        method.zero_grad(), neuron.zero_grad()
        run(engine, first(batch["x"]), method, neuron, batch, ("output", "grad_output"))
        gradient(method.threshold_raw, batch["grad_threshold_raw"], "grad_threshold_raw")
        gradient(neuron.decay_logit, -batch["grad_decay_logit"], "grad_decay_logit")
        assert_close(neuron.running_mean, batch["running_mean"].squeeze(), "running_mean")
    method.eval(), neuron.eval()
    ended = part(data, "eval")
    run(engine, first(ended["x"]), method, neuron, ended, ("output", ""), training=False)


@compiled_slowly
@pytest.mark.parametrize("name", cases("asgl", "spike_mask"))
def test_asgl(engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the masks of the file in place of drawn ones; then evaluation, which has no noise."""
    data = case("asgl", name)
    x, mask = first(data["x"]), first(data["spike_mask"]).bool()
    learns = "grad_v_threshold" in data
    options = {
        "surrogate": "sigmoid" if name.startswith("sigmoid") else "rectangular",
        "width_per": "layer" if data["alpha_raw"].numel() == 1 else "channel",
        "p": float(data["p"]),
        "v_threshold": float(data["v_threshold"]),
        "learn_threshold": learns,
    }
    reset = "soft" if bool(data["soft_reset"]) else "hard"
    method, neuron = parts_of(x, ("asgl", options), ("plif", {"reset": reset}))
    assert method.analog_share == pytest.approx(float(data["p"]))
    set_to(neuron.decay_logit, data["decay_logit"])
    set_to(method.alpha_raw, data["alpha_raw"])

    def stored(_seed: Tensor, _share: Tensor, t: int, places: Tensor) -> Tensor:
        # `places` are numbers in the order [B, *space, C].
        return mask[t].movedim(1, -1).flatten()[places]

    monkeypatch.setattr("gradspike.engine.steps.spike_mask", stored)
    run(engine, x, method, neuron, data, ("output", "grad_output"))
    gradient(method.alpha_raw, data["grad_alpha_raw"], "grad_alpha_raw")
    gradient(neuron.decay_logit, data["grad_decay_logit"], "grad_decay_logit")
    if learns:
        gradient(method.threshold_raw, data["grad_v_threshold"], "grad_v_threshold")
    ended = {"output": data["eval_output"]}
    run(engine, first(data["eval_x"]), method, neuron, ended, ("output", ""), training=False)


class ImLossNetwork(nn.Module):
    """A residual network whose blocks add their input to the current of the last neuron."""

    def __init__(self, channels: int, blocks: int, classes: int, time_steps: int) -> None:
        super().__init__()
        neuron = neuron_config("lif", decay=0.25, fires="above_threshold")
        context = LayerContext(time_steps, neuron, method_config("im_loss"), norm_config("bn"))
        convs = range(2 * blocks)
        self.time_steps = time_steps
        self.stem, self.stem_layer = nn.Conv2d(3, channels, 3, padding=1, bias=False), context.layer(channels)
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in convs)
        self.layers = nn.ModuleList(context.layer(channels) for _ in range(blocks))
        self.norms = nn.ModuleList(context.channel_norm(channels) for _ in range(blocks))
        self.ends = nn.ModuleList(context.neuron_layer(channels) for _ in range(blocks))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        s = self.stem_layer(self.stem(x), static=True)
        for number, (layer, norm, end) in enumerate(zip(self.layers, self.norms, self.ends, strict=True)):
            s = end(norm(self.convs[2 * number + 1](layer(self.convs[2 * number](s)))) + s)
        return self.head(s.mean((2, 3))).unflatten(0, (self.time_steps, -1)).mean(0)


def im_loss_name(name: str) -> str:
    """The file's name of a parameter."""
    if name.startswith("head."):
        return f"model.fc.conv.{name[5:]}"
    if name.startswith("stem"):
        return "model.conv1.pool.weight" if name == "stem.weight" else f"model.bn1.bn.{name.split('.')[-1]}"
    kind, number, *_, last = name.split(".")
    if kind == "convs":
        return f"model.layer1.{int(number) // 2}.conv{int(number) % 2 + 1}.pool.weight"
    return f"model.layer1.{number}.bn{1 if kind == 'layers' else 2}.bn.{last}"


@pytest.mark.parametrize("name", cases("im_loss", "terms"))
def test_im_loss_network(name: str) -> None:
    """The released code averages over the last neurons of the blocks, without the last block."""
    data = case("im_loss", name)
    terms = data["terms"]
    init = part(data, "init")
    model = ImLossNetwork(len(init["model.bn1.bn.weight"]), len(terms) - 1, data["logits"].shape[1], 4)
    model.time_steps = int(data["time_steps"])
    for own, parameter in model.named_parameters():
        set_to(parameter, init[im_loss_name(own)])
    with collect_losses() as extra:
        logits = model(data["x"])
    assert_close(logits, data["logits"], "logits")
    weight = float(data["weight_of_im_loss"])
    places = extra.losses[2::2]
    assert_close(torch.stack(places) / weight, terms[1:], "terms")
    used = torch.stack(places[:-1]).mean()
    assert_close(used / weight, data["im_loss"], "im_loss")
    loss = torch.nn.functional.cross_entropy(logits, data["y"].long()) + used
    assert_close(loss, data["loss"], "loss")
    named = dict(model.named_parameters())
    alone = torch.autograd.grad(used / weight, list(named.values()), retain_graph=True, allow_unused=True)
    for own, found in zip(named, alone, strict=True):
        expected = data[f"grad_im_alone/{im_loss_name(own)}"]
        assert_close(torch.zeros_like(expected) if found is None else found, expected, own, atol=scaled_atol(expected))
    loss.backward()
    grads = part(data, "grad")
    for own, parameter in model.named_parameters():
        expected = grads[im_loss_name(own)]
        assert_close(parameter.grad, expected, own, atol=scaled_atol(expected))
