"""The shortcut that tests take through Hydra changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose
from hydra._internal import config_loader_impl
from hydra.errors import HydraException
from omegaconf import OmegaConf

from gradspike.config.compose import CONF_DIR, _hydra
from helpers import merged_files

WORDS = [
    [],
    ["seed=3", "dataset=digits", "+logger.notes=x"],
    ["dataset=digits", "seed=4"],
    ["dataset=cifar10", "model=resnet19", "method=psg", "recipe=none"],
    ["dataset=cifar10", "model=resnet19", "method=psg"],
    ["model=resnet19", "method=psg", "dataset=cifar10", "~logger", "time_steps=9"],
    ["~method", "recipe=none"],
    ["+neuron@other=lif"],
]


def whole(words: list[str]) -> str | list[Any]:
    """Hydra's whole configuration, with what it notes about itself, or its error."""
    with _hydra([CONF_DIR]):
        try:
            return OmegaConf.to_yaml(compose("config", overrides=words, return_hydra_config=True))
        except HydraException as error:
            return [type(error), *str(error).splitlines()]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_the_files_merged_once_are_those_merged_each_time(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_loader_impl.create_defaults_list is not merged_files.chosen_by_hydra
    first, second = whole(words), whole(words)
    monkeypatch.setattr(config_loader_impl, "create_defaults_list", merged_files.chosen_by_hydra)
    assert whole(words) == first == second


def test_they_are_merged_once_and_values_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    merges: list[Any] = []
    original = merged_files._merged_by_hydra
    monkeypatch.setattr(merged_files, "_merged_by_hydra", lambda *words: merges.append(words) or original(*words))
    for known in ("_chosen", "_merged"):
        monkeypatch.setattr(merged_files, known, {})
    assert "\nseed: 5\n" in whole(["seed=5", "method=lsg"])
    assert "\nseed: 6\n" in whole(["seed=6", "method=lsg"])
    assert "\nseed: 6\n" in whole(["method=psg", "seed=6"])
    assert len(merges) == 2
