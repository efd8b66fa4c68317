"""SLTT and SLTT-K in a network: against the released training loop, and against a loop that runs other steps without
gradient.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.spiking_norm import LayerContext
from gradspike.training.losses import build_loss
from gradspike.training.module import SpikingClassifier
from gradspike.training.sltt import with_gradient_of_some_steps
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config
from helpers.plugin_arrays import SUMMED_ATOL, Case, assert_close, assert_spikes, case, cases, time_first

NAMES = cases("sltt", "losses", "grad_conv_weight")


class Network(nn.Module):
    """Convolution, neuron and linear layer of the released loop, without a norm."""

    def __init__(self, data: Case, gradient: str) -> None:
        super().__init__()
        steps = int(data["time_steps"])
        options = {"decay": 1 - 1 / float(data["tau"]), "reset": "soft", "gradient": gradient}
        method = method_config("fixed_sg", v_threshold=float(data["v_threshold"]), surrogate="rectangular")
        context = LayerContext(steps, neuron_config("lif", **options), method, norm_config("bn"))
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.layer = context.neuron_layer(4)
        self.fc = nn.Linear(100, 4)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(data[name.replace(".", "_")])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spikes = self.layer(self.conv(x), static=True)
        steps = spikes.unflatten(0, (-1, len(x)))
        return self.fc(steps.flatten(2)), steps


def loss_of(data: Case) -> nn.Module:
    config = load_config(["loss=ce_mse", f"loss.tet_lambda={float(data['mse_share'])}"])
    return build_loss(config.loss)


@pytest.mark.parametrize("name", NAMES)
def test_the_released_training_loop(name: str) -> None:
    data = case("sltt", name)
    network = Network(data, "sltt")
    logits, spikes = network(data["x"])
    assert_close(logits, time_first(data["logits"]), "logits")
    assert_spikes(spikes, time_first(data["spikes"]))
    loss_of(data)(logits, data["y"]).backward()
    for key, parameter in network.named_parameters():
        grad = f"grad_{key.replace('.', '_')}"
        assert_close(parameter.grad, data[grad], grad, atol=SUMMED_ATOL)


def looped(network: Network, data: Case, chosen: list[int]) -> None:
    """The loop of SLTT-K: one step at a time, without gradient unless it is chosen."""
    tau, theta, criterion = 1 - 1 / float(data["tau"]), float(data["v_threshold"]), loss_of(data)
    w = torch.zeros(())
    for t in range(int(data["time_steps"])):
        with torch.set_grad_enabled(t in chosen):
            u = tau * w.detach() + network.conv(data["x"])
            v = u - theta
            soft = (v + 0.5).clamp(0, 1)
            s = (v >= 0).to(u.dtype) + soft - soft.detach()
            w = u - theta * s
            loss = criterion(network.fc(s.flatten(1)).unsqueeze(0), data["y"]) / int(data["time_steps"])
        if t in chosen:
            loss.backward()


@pytest.mark.parametrize("count", [1, 3, 4])
def test_other_steps_have_no_gradient(count: int) -> None:
    data = case("sltt", NAMES[0])
    network, twin = Network(data, "sltt"), Network(data, "sltt")
    logits, _ = network(data["x"])
    masked = with_gradient_of_some_steps(logits, count, seed=1, epoch=2, step=3)
    assert torch.equal(masked, logits)
    (touched,) = torch.autograd.grad(masked.sum(), logits, retain_graph=True)
    chosen = touched.flatten(1).any(1).nonzero().flatten().tolist()
    assert len(chosen) == count
    loss_of(data)(masked, data["y"]).backward()
    looped(twin, data, chosen)
    for (key, parameter), other in zip(network.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=lambda text, k=key: f"{k}: {text}")


def test_steps_differ_between_batches_and_nothing_else() -> None:
    logits = torch.zeros(6, 1, 1, requires_grad=True)

    def chosen(*place: int) -> tuple[int, ...]:
        masked = with_gradient_of_some_steps(logits, 2, *place)
        return tuple(torch.autograd.grad(masked.sum(), logits)[0].flatten().int().tolist())

    assert chosen(0, 1, 2) == chosen(0, 1, 2)
    drawn = {chosen(seed, epoch, step) for seed in range(2) for epoch in range(3) for step in range(20)}
    assert len(drawn) == 15  # all pairs of six steps


def test_a_training_step_uses_it(tiny_config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts of a batch, and no validation, have the steps of the optimiser step."""
    config = tiny_config("neuron.gradient=sltt", "neuron.sltt_steps=2", "trainer.accumulate=2", "model.width=4")
    module = SpikingClassifier(config)
    places: list[tuple[int, ...]] = []

    def keep(logits: Tensor, *place: int) -> Tensor:
        places.append(place)
        return logits

    monkeypatch.setattr("gradspike.training.module.with_gradient_of_some_steps", keep)
    monkeypatch.setattr(type(module), "trainer", type("T", (), {"accumulate_grad_batches": 2, "max_epochs": 1}))
    monkeypatch.setattr(type(module), "current_epoch", 0)
    batch = {"input": torch.rand(2, 1, 8, 8), "label": torch.tensor([0, 1]), "index": torch.arange(2)}
    for number in (0, 1, 2):
        module.training_step(batch, number)
    module.eval()
    module.validation_step(batch, 0)
    assert places == [(2, config.seed, 0, 0), (2, config.seed, 0, 0), (2, config.seed, 0, 1)]
    assert (
        SpikingClassifier(
            tiny_config("model.activation=relu", "neuron.gradient=sltt", "neuron.sltt_steps=2")
        ).sltt_steps
        is None
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["neuron.sltt_steps=2"], "sltt_steps=2: needs gradient=sltt"),
        (
            ["neuron.gradient=sltt", "neuron.sltt_steps=9", "time_steps=4"],
            "neuron.sltt_steps=9: must be at most time_steps=4",
        ),
        (["neuron=masked_psn", "neuron.k=9", "time_steps=4"], "neuron.k=9: must be at most time_steps=4"),
        (["neuron=sliding_psn", "time_steps=1"], "neuron.k=2: must be at most time_steps=1"),
        (["neuron.gradient=sltt", "neuron.sltt_steps=0"], "neuron.sltt_steps=0: must be greater than 0"),
    ],
)
def test_steps_that_cannot_be(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(words)
