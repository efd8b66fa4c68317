"""The inputs of layers, and the resulting operations and energy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradspike.config.compose import load_config
from gradspike.cost.energy import PJ_AC, PJ_MAC, energy_of
from gradspike.cost.synapses import measure_synapses
from gradspike.tools.describe.measure import measure
from gradspike.training.build import build_model


class Known(nn.Module):
    """A layer with one real-valued input, and a layer with known spikes at two time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.second = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.first(images)
        spikes = torch.zeros(2, len(images), 4)
        spikes[0, :, 0] = 1  # a quarter at the first step
        spikes[1, :, :2] = 2  # half of them at the second one, counts of two
        return self.second(spikes.flatten(0, 1)).unflatten(0, (2, -1))


def test_inputs_are_counted_by_hand() -> None:
    model = Known().train()
    first, second = measure_synapses(model, torch.full((20, 1, 3, 3), 0.5))
    assert first == {
        **{"name": "first", "kind": "Conv2d", "macs": 18, "steps": 1, "input": "real"},
        **{"nonzero": [1.0], "magnitude": [0.5]},
    }
    assert second == {
        **{"name": "second", "kind": "Linear", "macs": 24, "steps": 2, "input": "whole"},
        **{"nonzero": [0.25, 0.5], "magnitude": [0.25, 1.0]},
    }
    assert model.training
    assert not model.first._forward_pre_hooks
    energy = energy_of([first, second], is_ann=False)
    assert (energy.multiplies, energy.accumulates, energy.macs) == (18, 24 * 0.625, 42)
    assert energy.nanojoules == pytest.approx((18 * PJ_MAC + 24 * 0.625 * PJ_AC) / 1000)


def test_an_ann_multiplies_everywhere_and_computes_a_still_picture_once() -> None:
    layers = measure_synapses(Known(), torch.full((4, 1, 3, 3), 0.5))
    energy = energy_of(layers, is_ann=True)
    assert (energy.multiplies, energy.accumulates) == (18 + 12, 0)
    assert energy.nanojoules == pytest.approx(30 * PJ_MAC / 1000)
    assert energy.nanojoules_skipping == pytest.approx((18 + 12 * 0.375) * PJ_MAC / 1000)


@pytest.mark.parametrize(
    "words",
    [["model.pool=max"], ["model.pool=avg"], ["dataset=digits_events"], ["model=resnet19", "model.width=0.03125"]],
)
def test_operations_are_those_of_describe(words: list[str]) -> None:
    rest = [] if words[0].startswith("model=") else ["model.width=4", "model.depth=2"]
    config = load_config([*rest, *words, "engine=eager"])
    inputs = torch.randint(0, 3, (5, config.dataset.channels, *[config.dataset.image_size] * 2)).float() / 2
    if config.dataset.kind == "frames":
        inputs = torch.randint(0, 3, (config.time_steps, *inputs.shape)).float()
    torch.manual_seed(0)
    layers = measure_synapses(build_model(config), inputs)
    counted = {layer.name: layer.macs for layer in measure(config).layers if layer.macs}
    assert {layer["name"]: layer["macs"] for layer in layers} == counted
    kinds = {layer["name"]: layer["input"] for layer in layers}
    pooled = "real" if words == ["model.pool=avg"] or config.dataset.kind == "frames" else "whole"
    if "convs.1" in kinds:
        assert (kinds["convs.0"], kinds["convs.1"]) == ("whole" if config.dataset.kind == "frames" else "real", pooled)
    for layer in layers:
        assert len(layer["nonzero"]) == layer["steps"] in (1, config.time_steps)
