"""What the probe warns of: silent layers, clamped widths, negative thresholds."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from gradspike.spiking_norm import SpikingNorm
from gradspike.training.probe.warnings import LayerWarnings
from helpers.probed import (
    BATCH,
    METHOD_OPTIONS,
    TRAIN,
    Net,
    fit,
    new_net,
)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The warnings."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    log, handler = logging.getLogger("gradspike"), Keep(level=logging.WARNING)
    log.addHandler(handler)
    yield messages
    log.removeHandler(handler)


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_a_healthy_training_warns_of_nothing(method: str, tmp_path: Path, said: list[str]) -> None:
    fit(new_net(method), tmp_path, epochs=2, every_n_steps=2)
    assert said == []


def test_a_layer_that_never_fires_is_named_once_an_epoch(tmp_path: Path, said: list[str]) -> None:
    net = new_net("fixed_sg")
    net.second.v_threshold = 1e6
    fit(net, tmp_path, epochs=2)
    assert [message.partition(". Try")[0] for message in said] == [
        f"layer 'second' did not fire in epoch {epoch}, so later layers learn nothing from it" for epoch in (1, 2)
    ]
    assert "norm.alpha" in said[0]


def test_a_layer_that_fires_once_an_epoch_is_not_silent(tmp_path: Path, said: list[str]) -> None:
    """The one spike is in the fourth of five steps, which is not probed."""
    net = new_net("fixed_sg")
    steps = 0

    def wake(layer: SpikingNorm, _inputs: Any) -> None:
        nonlocal steps
        steps += layer.training
        layer.v_threshold = 0.1 if layer.training and steps % 5 == 4 else 1e6

    net.second.register_forward_pre_hook(wake)
    fit(net, tmp_path, epochs=2)
    assert said == []


@pytest.mark.parametrize("every", [1, 100])
def test_a_clamped_width_gives_a_warning(tmp_path: Path, said: list[str], every: int) -> None:
    net = new_net("mpd_agl")
    nn.init.constant_(net.first.norm.weight, -1.0)
    fit(net, tmp_path, epochs=2, every_n_steps=every)
    assert len(said) == 2
    assert all("layer 'first' had a surrogate width below 0.001" in message for message in said)


@pytest.mark.parametrize("every", [1, 100])
def test_a_negative_threshold_gives_a_warning(tmp_path: Path, said: list[str], every: int) -> None:
    net = new_net("ds_atgo")
    nn.init.constant_(net.second.norm.bias, -10.0)
    net.second.method.running_threshold.fill_(-5.0)
    fit(net, tmp_path, epochs=2, every_n_steps=every)
    assert len(said) == 2
    assert all("layer 'second' has a negative threshold (-" in message for message in said)


def test_warnings_go_on_within_an_epoch(said: list[str]) -> None:
    """Spikes and warnings from before an interruption still count after it."""

    def forward(net: Net) -> None:
        net(TRAIN[:BATCH].transpose(0, 1))

    def watched(net: Net) -> LayerWarnings:
        return LayerWarnings({name: getattr(net, name) for name in ("first", "second")})

    net = new_net("fixed_sg")
    before = watched(net)
    before.start()
    forward(net)
    before.thresholds({"second": -1.0})
    state = json.loads(json.dumps(before.state()))
    before.stop()

    resumed = new_net("fixed_sg")
    resumed.first.v_threshold = resumed.second.v_threshold = 1e6
    after = watched(resumed)
    after.start(state)
    forward(resumed)
    after.thresholds({"second": -1.0})
    after.end_epoch(0)
    assert len(said) == 1
    after.new_epoch()
    forward(resumed)
    after.end_epoch(1)
    assert [message.split("'")[1] for message in said[1:]] == ["first", "second"]
