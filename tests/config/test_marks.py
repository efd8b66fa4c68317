"""Every key of the configuration has one mark for what it affects, and all code uses this mark."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from gradspike.config.compose import load_config
from gradspike.config.marks import always_shown, touches
from gradspike.config.schema import ExperimentConfig, TrainerConfig
from gradspike.config.validate import PLUGGABLE
from gradspike.data.options.pictures import ImageNetConfig
from gradspike.registry import Strict
from gradspike.touches import SHAPING, Shown, Touches, leaves, mark


def test_every_key_of_the_schema_has_a_mark() -> None:
    """`leaves` raises TypeError for a key without one."""
    found = {key for key, _ in leaves(ExperimentConfig)}
    assert {"seed", "trainer.devices", "logger.project", "dataset.workers", "method.label"} <= found


@pytest.mark.parametrize(
    ("section", "name"), [(section, name) for section, registry in PLUGGABLE.items() for name in registry.names()]
)
def test_every_option_of_every_part_has_a_mark(section: str, name: str) -> None:
    assert len(list(leaves(PLUGGABLE[section].config_class(name)))) > 2


def test_a_new_key_without_a_mark_fails() -> None:
    class More(TrainerConfig):
        forgotten: int = 1

    with pytest.raises(TypeError, match=r"More\.forgotten has no mark for what it affects"):
        list(leaves(More))


def test_the_nearest_mark_counts() -> None:
    class Inner(Strict):
        touches: ClassVar[Touches] = Touches.SPEED
        one: int = 1
        two: Shown[int] = 2

    class Outer(Strict):
        inner: Inner = Inner()
        whole: Shown[Inner] = Inner()

    assert dict(leaves(Outer)) == {
        "inner.one": Touches.SPEED,
        "inner.two": Touches.SHOWN,
        "whole": Touches.SHOWN,
    }
    assert mark(Outer, ["whole", "one"]) is Touches.SHOWN
    assert mark(Outer, ["inner", "three"]) is None
    assert mark(ImageNetConfig, ["workers"]) is Touches.SHOWN  # declared again with another default


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("seed", Touches.SEED),
        ("engine", Touches.SPEED),
        ("data_dir", Touches.SHOWN),
        ("recipe", Touches.START),
        ("trainer.channels_last", Touches.SPEED),
        ("trainer.max_epochs", Touches.BUDGET),
        ("trainer.unheard_of", Touches.RESULT),
        ("dataset.batch_size", Touches.BUDGET),
        ("dataset.source", Touches.SHOWN),
        ("dataset.storage", Touches.FORM),
        ("dataset.val_fraction", Touches.SPLIT),
        ("dataset.image_size", Touches.DATA),
        ("dataset.augment.flip", Touches.RESULT),
        ("dataset.unheard_of", Touches.DATA),
        ("method.gamma_mean", Touches.RESULT),
        ("method.label", Touches.START),
        ("optimizer.groups.head.*.lr", Touches.RESULT),
        ("unheard_of", Touches.RESULT),
    ],
)
def test_marks_of_a_configuration(key: str, expected: Touches) -> None:
    plain = load_config(["dataset=cifar10", "recipe=none"]).plain()
    plain["trainer"]["unheard_of"] = plain["dataset"]["unheard_of"] = plain["unheard_of"] = 1
    plain["optimizer"]["groups"] = {"head.*": {"lr": 2.0}}
    assert touches(plain)[key] is expected


def test_marks_of_a_configuration_whose_parts_are_gone() -> None:
    plain: dict[str, Any] = {"method": {"name": "gone:Rule", "slope": 1}, "dataset": {"name": "gone", "dots": 2}}
    assert touches(plain)["method.slope"] is Touches.RESULT
    assert touches(plain)["dataset.dots"] is Touches.DATA


def test_keys_and_sections_that_only_show() -> None:
    for key in ("logger", "logger.project", "checkpoint", "dataset.workers", "dataset.source", "data_dir", "probe"):
        assert always_shown(key), key
    for key in ("trainer", "trainer.devices", "dataset", "seed", "runs_dir", "method.label", "unheard_of"):
        assert not always_shown(key), key
    assert Touches.SHOWN not in SHAPING
