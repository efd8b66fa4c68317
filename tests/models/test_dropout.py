"""Dropout with one mask for all time steps, and where networks have it."""

from __future__ import annotations

import pytest
import torch

from gradspike.models.dropout import StepDropout, step_dropout
from helpers.networks import build, changed, config_for


def test_the_mask_is_the_same_at_all_steps_of_a_sample() -> None:
    torch.manual_seed(0)
    dropped = step_dropout(0.25, 4)(torch.ones(4 * 50, 40, dtype=torch.float64)).view(4, 50, 40)
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, 1 / 0.75}
    assert float((dropped == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(dropped[0, 0], dropped[0, 1])


def test_evaluation_drops_nothing() -> None:
    x = torch.randn(4, 3)
    assert step_dropout(0.5, 2).eval()(x) is x
    assert not isinstance(step_dropout(0.0, 2), StepDropout)


@pytest.mark.parametrize(("name", "places"), [("vgg11", 8), ("vgg9", 2), ("ms_resnet18", 1)])
def test_networks_draw_a_mask_at_each_place(name: str, places: int) -> None:
    config = config_for(name)
    model = build(changed(config, "model", dropout=0.5))
    drawn: list[int] = []
    for module in model.modules():
        if isinstance(module, StepDropout):
            module.register_forward_hook(lambda _, x, y: drawn.append(len(x[0])))
    images = torch.randn(2, 3, config.dataset.image_size, config.dataset.image_size)
    assert not torch.equal(model(images), model(images))
    assert drawn == 2 * places * [2 * config.time_steps]
    assert torch.equal(model.eval()(images), model(images))
