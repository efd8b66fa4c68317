"""Layers whose spikes reach their own currents one step later."""

from __future__ import annotations

import logging
from typing import Any

import nir
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradspike import Stream, StreamState
from gradspike.__main__ import main
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.cost.energy import energy_of
from gradspike.cost.neurobench import measure_neurobench
from gradspike.cost.neurobench_metrics import DENSE
from gradspike.cost.synapses import measure_synapses
from gradspike.engine import compiled
from gradspike.engine.registry import load_engine
from gradspike.errors import ConfigError
from gradspike.models.parameters import undecayed_parameters
from gradspike.neurons.registry import NEURONS
from gradspike.spiking_norm import SpikingNorm
from gradspike.tools.describe.measure import measure
from gradspike.tools.export.graph import nir_graph
from gradspike.training.build import build_model
from gradspike.training.engine_choice import first_engine, settle_engine
from gradspike.training.losses import TimeMeanCrossEntropy
from gradspike.training.module import SpikingClassifier
from helpers.networks import build, changed, config_for, train
from helpers.nir_network import NirNetwork

T, B = 4, 5
LIF = ("neuron=lif", "neuron.decay=0.6", "method=fixed_sg", "method.surrogate=triangular", "method.v_threshold=0.7")


def small(*more: str, kind: str = "frames") -> ExperimentConfig:
    return config_for("spiking_rnn", f"time_steps={T}", "model.hidden=[6,5]", "dataset.image_size=4", *more, kind=kind)


def network(*more: str, gain: float = 3.0) -> tuple[nn.Module, Tensor]:
    """In float64, with feedback strong enough to change spikes, and frames [T, B, 2, 4, 4]. It has seen them."""
    model = build(small(*more)).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("feedback.weight"):
                parameter.mul_(gain)
            if name.endswith("norm.bias"):
                parameter.add_(0.5)  # so that most neurons fire
    frames = torch.randn(T, B, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for _ in range(30):  # for the running statistics
            model(frames)
    return model, frames


class Triangle(torch.autograd.Function):
    """Spikes at v >= 0; the gradient is max(0, 1 - |v|)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return gradient * (1 - v.abs()).clamp(min=0)


def plain(model: nn.Module, frames: Tensor, values: dict[str, Tensor]) -> Tensor:
    """The network as one loop over steps, with all layers inside, as one would write it without gradspike."""
    x = frames.flatten(2)
    for layer in range(2):
        weight = values[f"linear.{layer}.weight"].flatten(1)
        gain, bias = (values[f"neurons.{layer}.norm.{name}"] for name in ("weight", "bias"))
        y = x @ weight.T
        mean, variance = y.mean((0, 1)), y.var((0, 1), correction=0)
        current = gain * (y - mean) / (variance + 1e-5).sqrt() + bias
        u = s = torch.zeros_like(current[0])
        spikes = []
        for step in current:
            u = 0.6 * u * (1 - s) + step + s @ values[f"neurons.{layer}.feedback.weight"].T
            s = Triangle.apply(u - 0.7)
            spikes.append(s)
        x = torch.stack(spikes)
    return x @ values["head.weight"].T + values["head.bias"]


def test_a_plain_loop_gives_the_same_logits_and_gradients() -> None:
    model, frames = network(*LIF, "norm=bn")
    values = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    own, labels = frames.clone().requires_grad_(), torch.arange(B)
    theirs = frames.clone().requires_grad_()
    logits, expected = model(own), plain(model, theirs, values)
    torch.testing.assert_close(logits, expected)
    loss = TimeMeanCrossEntropy()
    loss(logits, labels).backward()
    loss(expected, labels).backward()
    torch.testing.assert_close(own.grad, theirs.grad)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any(), name
        torch.testing.assert_close(parameter.grad, values[name].grad, msg=name)


def test_feedback_changes_the_spikes_from_the_second_step_on() -> None:
    model, frames = network(*LIF, "norm=bn")
    with torch.no_grad():
        model.eval()
        with_feedback = model(frames)
        for layer in model.neurons:
            layer.feedback.weight.zero_()
        without = model(frames)
    assert torch.equal(with_feedback[0], without[0])
    assert not torch.equal(with_feedback[1], without[1])


def test_sltt_cuts_the_gradient_of_the_feedback_between_steps() -> None:
    """The loss of one step reaches the currents of that step alone, and V through the spikes of the step before."""
    model, frames = network(*LIF, "neuron.gradient=sltt")
    frames.requires_grad_()
    model.eval()(frames)[2].square().sum().backward()
    assert frames.grad is not None
    reached = frames.grad.flatten(1).any(1).tolist()
    assert reached == [False, False, True, False]
    assert model.neurons[1].feedback.weight.grad.any()


def streamed(model: nn.Module, frames: Tensor) -> Tensor:
    stream, state, logits = Stream(model), None, []
    for frame in frames:
        one, state = stream(frame, state)
        logits.append(one)
    assert isinstance(state, StreamState)
    return torch.stack(logits)


@pytest.mark.parametrize(
    "words",
    [
        (*LIF, "norm=bn"),
        ("method=mpd_agl", "neuron=plif"),
        ("method=psg", "neuron=lif"),
        ("method=asgl", "neuron=lif"),
        ("method=fixed_sg", "neuron=clif", "norm=mpbn"),
        ("model.activation=relu",),
        ("model.activation=relu", "model.dropout=0.5"),
    ],
    ids=lambda words: ",".join(word.partition("=")[2] for word in words),
)
def test_one_step_at_a_time_equals_the_whole(words: tuple[str, ...]) -> None:
    model, frames = network(*words)
    train(model, frames, torch.arange(B), steps=1, lr=1e-3)
    model.eval()
    with torch.no_grad():
        whole = model(frames)
    torch.testing.assert_close(streamed(model, frames), whole, rtol=1e-12, atol=1e-12)
    assert len({step.sum().item() for step in whole}) > 1


def test_the_twin_feeds_back_what_its_layers_give() -> None:
    model, frames = network("model.activation=relu")
    model.eval()
    with torch.no_grad():
        x = frames.flatten(2)
        for linear, layer in zip(model.linear, model.neurons, strict=True):
            y = (x @ linear.weight.flatten(1).T).flatten(0, 1)[:, :, None, None]
            current = torch.unflatten(layer.norm(y)[:, :, 0, 0], 0, (T, B))
            steps = [F.relu(current[0])]
            for one in current[1:]:
                steps.append(F.relu(one + steps[-1] @ layer.feedback.weight.T))
            x = torch.stack(steps)
        torch.testing.assert_close(model(frames), model.head(x))


@pytest.mark.parametrize(
    "words",
    [("neuron=lif",), ("neuron=plif", "neuron.reset=soft"), ("neuron=if", "norm=bn")],
    ids=lambda words: words[0],
)
def test_the_nir_graph_has_the_feedback_and_its_spikes(words: tuple[str, ...]) -> None:
    model, frames = network("method=fixed_sg", *words)
    model.eval()
    graph = nir_graph(model, frames[0, :1], {})
    assert isinstance(graph.nodes["neurons.0.feedback"], nir.Conv2d)
    with torch.no_grad():
        expected = model(frames)
    torch.testing.assert_close(NirNetwork(graph)(frames)["output"], expected)
    del graph.nodes["neurons.0.feedback"]
    graph.edges = [edge for edge in graph.edges if "neurons.0.feedback" not in edge]
    assert not torch.allclose(NirNetwork(graph)(frames)["output"], expected)


def test_describe_counts_the_weights_and_operations_of_the_feedback() -> None:
    rows = {layer.name: layer for layer in measure(small(*LIF)).layers}
    row = rows["neurons.0.feedback"]
    assert (row.kind, row.parameters, row.macs) == (f"Feedback, {T - 1} times", 36, (T - 1) * 36)
    assert rows["neurons.1.feedback"].macs == (T - 1) * 25
    total = sum(layer.parameters for layer in rows.values())
    assert total == sum(one.numel() for one in build_model(small(*LIF)).parameters())


def test_the_feedback_accumulates_spikes_and_counts_in_the_energy() -> None:
    model, frames = network(*LIF, "norm=bn")
    given: list[Tensor] = []
    model.neurons[0].feedback.register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0]))
    many = torch.cat([frames] * 4, 1)  # more than one pass
    layers = measure_synapses(model, many)
    record = next(layer for layer in layers if layer["name"] == "neurons.0.feedback")
    assert (record["kind"], record["macs"], record["steps"]) == ("Feedback", (T - 1) * 36, T - 1)
    assert record["input"] == "whole"
    spikes = torch.cat([torch.stack(given[start : start + T - 1]) for start in range(T - 1, len(given), T - 1)], 1)
    expected = spikes.flatten(1).mean(1)
    torch.testing.assert_close(torch.tensor(record["nonzero"], dtype=torch.float64), expected, rtol=1e-5, atol=1e-5)
    energy = {layer.name: layer for layer in energy_of(layers, is_ann=False).layers}["neurons.0.feedback"]
    assert energy.accumulates
    assert energy.operations == pytest.approx((T - 1) * 36 * expected.mean().item(), rel=1e-4)


def test_the_twin_of_a_still_image_counts_every_step_behind_feedback() -> None:
    """Only its first layer is computed once: behind feedback, steps differ."""
    config = small("model.activation=relu", kind="image")
    images = torch.randn(3, 3, 4, 4)
    layers = measure_synapses(build(config), images)
    counted = {layer.name: layer.macs for layer in energy_of(layers, is_ann=True).layers}
    assert counted == {
        "linear.0": 48 * 6,
        "neurons.0.feedback": (T - 1) * 36,
        "linear.1": T * 30,
        "neurons.1.feedback": (T - 1) * 25,
        "head": T * 50,
    }


def test_neurobench_counts_the_feedback_once() -> None:
    model, frames = network(*LIF)
    assert measure_neurobench(model, frames)[DENSE.name] == T * (32 * 6 + 30 + 50) + (T - 1) * (36 + 25)


def test_a_loss_on_the_current_includes_the_feedback() -> None:
    from gradspike.collected import collect_losses

    model, frames = network("method=im_loss", "norm=bn", "neuron=lif")
    layer: SpikingNorm = model.neurons[0]
    seen: list[Tensor] = []
    original = layer.method.current_loss
    layer.method.current_loss = lambda facts, mean: (seen.append(mean), original(facts, mean))[1]  # type: ignore[method-assign,func-returns-value]
    fed: list[Tensor] = []
    layer.feedback.register_forward_hook(lambda module, inputs, output: fed.append(output))
    y = model.linear[0](frames.flatten(0, 1))
    with collect_losses():
        layer(y)
    current = torch.unflatten(layer.norm(y, update=False), 0, (T, B))
    total = torch.cat([current[:1], current[1:] + torch.stack(fed)])
    torch.testing.assert_close(seen[0], total.mean())
    torch.testing.assert_close(layer.inspect(y).own["current_mean"], total.mean().detach())


def test_weights_of_the_feedback_decay_and_values_of_norms_do_not() -> None:
    undecayed = undecayed_parameters(build(small(*LIF)))
    assert "neurons.0.norm.weight" in undecayed
    assert not any("feedback" in name for name in undecayed)


@pytest.mark.parametrize("name", [name for name in NEURONS.names() if "psn" in name])
def test_neurons_of_all_steps_at_once_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"layer 'neurons.0': neuron '{name}' computes all time steps at once, so"):
        build(small(f"neuron={name}", "method=fixed_sg"))


@pytest.mark.parametrize("name", [name for name in NEURONS.names() if "psn" not in name])
def test_every_other_neuron_learns(name: str) -> None:
    method = "trsg" if name == "trsg" else "fixed_sg"
    model, frames = network(f"neuron={name}", f"method={method}")
    train(model, frames, torch.arange(B), steps=1)
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["engine=compiled"],
            "engine=compiled: has no kernels for model=spiking_rnn.*Use engine=eager, or engine=auto",
        ),
        (["engine=triton"], "engine=triton: has no kernels for model=spiking_rnn"),
        (["time_steps=1"], "time_steps=1: model=spiking_rnn feeds the spikes of one step back.*or model=spiking_mlp"),
    ],
)
def test_what_feedback_cannot_have_is_refused_before_a_run(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "dataset=digits_events", "model=spiking_rnn", *words]) == 2
    assert " ".join(capsys.readouterr().err.split()).count("engine=") or words == ["time_steps=1"]
    with pytest.raises(ConfigError, match=said):
        load_config(["dataset=digits_events", "model=spiking_rnn", *words])


def test_auto_chooses_the_reference_engine_and_says_so() -> None:
    config = changed(small(), "trainer", accelerator="cpu", max_epochs=100).model_copy(update={"engine": "auto"})
    module = SpikingClassifier(config, first_engine(config))
    reason = settle_engine(module.model, config, samples=10**9)
    assert (
        reason
        == "engine: eager; feedback has no compiled kernels, because each step needs the spikes of the step before"
    )
    assert {layer._run for layer in module.model.modules() if isinstance(layer, SpikingNorm)} == {load_engine("eager")}


def test_a_fused_engine_runs_such_layers_on_the_reference(caplog: pytest.LogCaptureFixture) -> None:
    """Where one's own network was given one."""
    model, frames = network(*LIF)
    expected = model(frames)
    for layer in model.neurons:
        layer.use_engine(compiled.run)
    from gradspike.engine.fused import _tell_of_feedback

    _tell_of_feedback.cache_clear()
    with caplog.at_level(logging.WARNING, "gradspike"):
        assert torch.equal(model(frames), expected)
    assert "Layers that feed their spikes back compute one step after the other" in caplog.text


class LastStep(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)[-1:]


def test_feedback_learns_to_remember_what_a_neuron_forgets() -> None:
    """The class is in the first step alone. Neurons that leak nearly everything keep none of it to the last step."""
    words = ["neuron=lif", "neuron.decay=0.001", "method=fixed_sg", "method.surrogate=triangular", "norm=bn"]
    frames, labels = torch.zeros(5, 3, 2, 2, 2), torch.arange(3)
    frames[0] = torch.eye(3, 8).view(3, 2, 2, 2) * 8
    with_feedback, without = (
        LastStep(
            build(config_for(model, *words, "time_steps=5", "model.hidden=[24]", "dataset.image_size=2", kind="frames"))
        )
        for model in ("spiking_rnn", "spiking_mlp")
    )
    (logits,) = without(frames)
    assert torch.equal(logits[0], logits[1])
    for _ in range(30):
        train(with_feedback, frames, labels, steps=5, lr=0.02)
        if torch.equal(with_feedback(frames)[0].argmax(1), labels):
            return
    pytest.fail("150 steps were not enough")
