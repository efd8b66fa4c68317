"""A method's value chosen by finite differences of the loss, as the temperature of Dspike."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.methods.base import Differences, LayerFacts, check_method
from gradspike.methods.fixed_sg import FixedSg
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.callbacks.finite_differences import FiniteDifferences, choose
from gradspike.training.module import SpikingClassifier
from helpers.method_checks import method_config

Compose = Callable[..., ExperimentConfig]


@pytest.fixture
def module(tiny_config: Compose) -> SpikingClassifier:
    torch.manual_seed(0)
    config = tiny_config("method=dspike_adaptive", "model.width=4", "model.moderate_dropout=0.3")
    return SpikingClassifier(config).train().double()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(8, 1, 8, 8, generator=generator, dtype=torch.float64), torch.arange(8)


def temperatures(module: SpikingClassifier) -> list[float]:
    layers = [layer for layer in module.model.modules() if isinstance(layer, SpikingNorm)]
    return [round(layer.method.temperature.item(), 6) for layer in layers]


def test_the_candidate_nearest_to_the_differences_is_taken(
    module: SpikingClassifier, batch: tuple[Tensor, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """Against copies of the network with other weights and other temperatures; nothing else changes."""
    inputs, labels = batch
    weight = module.model.get_parameter("convs.0.weight")

    def loss(edit: Callable[[SpikingClassifier], object]) -> tuple[Tensor, SpikingClassifier]:
        twin = copy.deepcopy(module)
        with torch.no_grad():
            edit(twin)
        torch.manual_seed(5)
        return twin.criterion(twin.model(inputs), labels), twin

    def shifted(place: int, size: float) -> Callable[[SpikingClassifier], object]:
        return lambda twin: twin.model.get_parameter("convs.0.weight").view(-1)[place].add_(size)

    expected = torch.stack(
        [(loss(shifted(i, 0.1))[0] - loss(shifted(i, -0.1))[0]).detach() / 0.2 for i in range(weight.numel())]
    )
    similarities = {}
    for candidate in (3.0, 3.2, 2.8):
        total, twin = loss(lambda twin, b=candidate: [one.take(b) for one in twin.modules() if hasattr(one, "take")])
        total.backward()
        gradient = twin.model.get_parameter("convs.0.weight").grad
        assert gradient is not None
        similarities[candidate] = F.cosine_similarity(gradient.flatten(), expected, dim=0).item()
    best = max(similarities, key=similarities.__getitem__)
    assert len(set(similarities.values())) == 3

    torch.manual_seed(5)
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        choose(module, inputs, labels, epoch=0)
    assert set(temperatures(module)) == {best}
    shown = [f"{value:.3f} for {candidate:g}" for candidate, value in similarities.items()]
    assert f"epoch 1: {best:g} by {weight.numel()} finite differences" in caplog.text
    assert all(text in caplog.text for text in shown)
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) or name.endswith(".method.temperature"), name
    assert all(parameter.grad is None for parameter in module.parameters())


def test_without_differences_the_value_stays(module: SpikingClassifier, batch: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in module.model.named_parameters():
            if name.endswith("norm.bias"):
                parameter.fill_(-1000.0)  # nothing fires
    choose(module, *batch, epoch=0)
    assert set(temperatures(module)) == {3.0}


def test_when_it_is_chosen(tiny_config: Compose, batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step of every second epoch, from as many weights as asked; the state dict has the value."""
    config = tiny_config("method=dspike_adaptive", "model.width=4", "method.choose_every=2", "method.weights=5")
    module = SpikingClassifier(config).train().double()
    asked: list[int] = []
    kind = "gradspike.training.callbacks.finite_differences._difference"
    monkeypatch.setattr(kind, lambda loss, weight, place, size: asked.append(place) or weight.new_tensor(1.0))
    callback = FiniteDifferences()
    places = []
    for epoch, number in ((0, 0), (0, 1), (1, 0), (2, 0), (2, 3)):
        trainer: Any = SimpleNamespace(current_epoch=epoch)
        callback.on_train_batch_start(trainer, module, dict(zip(("input", "label"), batch, strict=True)), number)
        places.append(tuple(asked))
        asked.clear()
    assert [len(set(one)) for one in places] == [5, 0, 0, 5, 0]
    assert places[0] != places[3]
    names = [name for name in module.state_dict() if name.endswith("method.temperature")]
    assert len(names) == len(temperatures(module))
    assert FiniteDifferences.needed(module.model)

    constant = SpikingClassifier(tiny_config("method=dspike", "model.width=4"))
    assert not FiniteDifferences.needed(constant.model)
    assert not any(name.endswith("temperature") for name in constant.state_dict())


def test_weights_without_a_choice_are_refused(tiny_config: Compose) -> None:
    with pytest.raises(ConfigError, match="weights=3: needs choose_every, as in method=dspike_adaptive"):
        tiny_config("method=dspike", "method.weights=3")


def test_a_method_that_asks_for_it_without_candidates_is_refused() -> None:
    class Unfinished(FixedSg):
        differences = Differences(every=1, size=0.1)

    method = Unfinished(method_config("fixed_sg"), time_steps=2, channels=3)
    with pytest.raises(ConfigError, match="sets `differences` but has no `candidates`"):
        check_method(method, LayerFacts(2, 1.0, torch.tensor(0.2)))
