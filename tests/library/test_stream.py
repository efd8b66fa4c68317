"""Step by step gives what the whole sequence gives, to the last bit; what cannot be streamed is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradspike import SpikingLayers, Stream, StreamState, unfold_time
from gradspike.errors import ConfigError, UserError
from gradspike.neurons.registry import NEURONS
from gradspike.norms.base import ChannelNorm
from helpers.networks import build, config_for, train

STEPS = 3


def network(model: str, *more: str, steps: int = 2) -> tuple[nn.Module, Tensor]:
    """A network after a little training, in which every layer fires, and frames [T, B, C, H, W]."""
    config = config_for(model, *more, f"time_steps={STEPS}", kind="frames")
    built = build(config)
    size = config.dataset.image_size
    frames = torch.randn(STEPS, 4, 2, size, size, generator=torch.Generator().manual_seed(1)) * 3
    train(built, frames, torch.arange(4), steps=steps, lr=1e-3)
    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, ChannelNorm):
                module.bias.add_(0.3 * torch.randn_like(module.bias) + 0.6)
    return built.eval(), frames


def streamed(model: nn.Module, frames: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
    stream, logits = Stream(model), []
    for frame in frames:
        one, state = stream(frame, state)
        logits.append(one)
    assert state is not None
    return torch.stack(logits), state


@torch.no_grad()
def assert_equal(model: nn.Module, frames: Tensor) -> None:
    """In float64: products of other numbers of rows may round differently, which in float32 may flip a spike."""
    model, frames = model.double(), frames.double()
    logits, state = streamed(model, frames)
    torch.testing.assert_close(logits, model(frames), rtol=1e-12, atol=1e-12)
    assert state.steps == STEPS
    assert len({step.sum().item() for step in logits}) > 1  # something happened at every step


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("sew_resnet18", []),
        ("ms_resnet18", ["model.zero_gain=false"]),
        ("spikformer", []),
        ("sdt", ["method.v_threshold=2"]),  # else the biases above make all of its last neurons fire at every step
        ("timm", []),
    ],
)
def test_other_backbones(model: str, options: list[str]) -> None:
    assert_equal(*network(model, *options, steps=0))


def test_self_attention_across_samples_is_refused() -> None:
    """And with a potential for each sample, streamed."""
    assert_equal(*network("qkformer", steps=0))
    as_released = ["model.attention_state=as_released", "method=fixed_sg", "norm=bn"]
    model = build(config_for("qkformer", *as_released, kind="frames")).eval()
    with pytest.raises(ConfigError, match="a stream has no samples that follow each other in a step"):
        Stream(model)(torch.randn(2, 2, 8, 8))


def test_an_output_neuron() -> None:
    assert_equal(*network("spiking_cnn", "model.readout=ltmd"))


@pytest.mark.parametrize("method", ["ds_atgo", "diet_snn", "trsg"])
def test_methods_that_set_thresholds_or_heights(method: str) -> None:
    neuron = "neuron=trsg" if method == "trsg" else "neuron=plif"
    assert_equal(*network("spiking_cnn", f"method={method}", neuron))


@pytest.mark.parametrize("norm", ["mpbn", "tab", "tebn"])
def test_norms_of_steps_and_potentials(norm: str) -> None:
    assert_equal(*network("spiking_cnn", f"norm={norm}", "method=fixed_sg"))


@pytest.mark.parametrize("neuron", [name for name in NEURONS.names() if not name.endswith("psn")])
def test_every_neuron_with_a_recursion(neuron: str) -> None:
    assert_equal(*network("spiking_cnn", f"neuron={neuron}", "method=fixed_sg"))


@pytest.mark.parametrize("neuron", [name for name in NEURONS.names() if name.endswith("psn")])
def test_a_parallel_neuron_is_refused(neuron: str) -> None:
    model = build(config_for("spiking_cnn", f"neuron={neuron}", "method=fixed_sg", kind="frames"))
    with pytest.raises(ConfigError, match=f"layer 'neurons.0': neuron '{neuron}' computes all time steps at once"):
        Stream(model)


def test_the_state_is_the_callers() -> None:
    """Two streams through one network do not mix, and a state can be kept and used again."""
    model, frames = network("spiking_cnn")
    stream = Stream(model)
    first, kept = stream(frames[0])
    expected, _ = stream(frames[1], kept)
    other, _ = stream(frames[2])
    stream(other.new_zeros(frames[1].shape), kept)
    assert torch.equal(stream(frames[1], kept)[0], expected)
    assert not torch.equal(first, expected)
    assert list(kept.layers) == ["neurons.0", "neurons.1"]
    assert kept.to("meta").layers["neurons.0"][0].is_meta


def test_a_single_sample_is_exact_too() -> None:
    """Matrix products round one row differently from several; with a state of two copies, the state still has one."""
    model, frames = network("spiking_cnn")
    one = frames[:, :1]
    with torch.no_grad():
        whole = model(one)
    logits, state = streamed(model, one)
    assert torch.equal(logits, whole)
    assert state.layers["neurons.0"][0].shape[0] == 1
    rough = Stream(model, exact=False)(one[0])[0]
    torch.testing.assert_close(rough, whole[0])


def test_a_stream_may_be_longer_than_the_training_was() -> None:
    """It is as if the network had been built with more steps."""
    model, frames = network("spiking_cnn")
    long = build(config_for("spiking_cnn", f"time_steps={2 * STEPS}", kind="frames")).eval()
    long.load_state_dict(model.state_dict())
    twice = torch.cat([frames, frames])
    with torch.no_grad():
        assert torch.equal(streamed(model, twice)[0], long(twice))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("norm=tebn", "method=fixed_sg"), "the norm has values for each of its 3 time steps, so there is no step 4"),
        (("method=ds_atgo",), "method 'ds_atgo' sets thresholds for each of its 3"),
        (("neuron=clif", "method=fixed_sg"), None),
    ],
)
def test_steps_beyond_those_of_the_training(words: tuple[str, ...], said: str | None) -> None:
    model, frames = network("spiking_cnn", *words)
    _, state = streamed(model, frames)
    if said is None:
        streamed(model, frames, state)
        return
    with pytest.raises(ConfigError, match=said):
        streamed(model, frames, state)


def test_what_does_not_fit_is_refused() -> None:
    model, frames = network("spiking_cnn")
    stream = Stream(model)
    _, state = stream(frames[0])
    with pytest.raises(ValueError, match=r"state has shape \[4, 4, 8, 8\], but this step has \[2,"):
        stream(frames[1, :2], state)
    with pytest.raises(ValueError, match=r"no layer 'neurons.0': it is the state of another network"):
        stream(frames[1], StreamState(1, {}))
    with pytest.raises(UserError, match=r"Call model.eval\(\) first"):
        Stream(model.train())(frames[0])
    with pytest.raises(ConfigError, match=r"no layers of gradspike"):
        Stream(nn.Linear(2, 2))
    still = build(config_for("spiking_cnn", "model.encoder=poisson", "dataset.normalize=unit"))
    with pytest.raises(ConfigError, match=r"model\.encoder=poisson spreads one image over all time steps"):
        Stream(still)


class Shared(nn.Module):
    """One layer that is called twice, on vectors."""

    def __init__(self, fold: bool = True) -> None:
        super().__init__()
        layers = SpikingLayers("fixed_sg", time_steps=STEPS, norm="bn")
        self.inner, self.spikes, self.fold = nn.Linear(5, 5), layers.layer(5), fold

    def forward(self, x: Tensor) -> Tensor:
        x = self.spikes(x.flatten(0, 1) if x.ndim == 3 else x)
        x = self.spikes(5 * self.inner(x))
        return unfold_time(x, STEPS) if self.fold else x


def test_a_layer_that_is_called_twice() -> None:
    torch.manual_seed(0)
    model, inputs = Shared().eval(), 3 * torch.rand(STEPS, 7, 5)
    logits, state = streamed(model, inputs)
    with torch.no_grad():
        assert torch.equal(logits, model(inputs))
    assert list(state.layers) == ["spikes", "spikes#2"]
    assert logits.sum() > 0
    with pytest.raises(ValueError, match=r"returned \[7, 5\] for one time step; expected \[1, B, ...\]"):
        Stream(Shared(fold=False).eval())(inputs[0])
