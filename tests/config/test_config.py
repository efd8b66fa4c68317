from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from gradspike.config.compose import CONF_DIR, GROUPS, load_config, options_of, visible_gpus
from gradspike.config.validate import validate
from gradspike.errors import ConfigError, nearest
from gradspike.methods.registry import METHODS
from gradspike.models.registry import MODELS
from gradspike.neurons.registry import NEURONS


def test_defaults_are_the_documented_ones() -> None:
    config = load_config([])
    assert (config.method.name, config.dataset.name, config.model.name) == ("mpd_agl", "digits", "spiking_cnn")
    assert config.engine == "auto"
    assert config.recipe is None


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "recipe"])
def test_every_option_of_every_group_composes(group: str) -> None:
    options = options_of(group, [CONF_DIR])
    assert options
    for option in options:
        word = f"{group}={option}"
        # Four devices must share the batch; a folder of one's own tells neither its classes nor a size.
        facts = ["dataset.image_size=32", "dataset.classes=5"] if option.endswith("_folder") else []
        if group == "model":  # the digits are too small for the VGG networks
            facts = ["dataset=cifar10"]
        if word == "trainer=ddp" and not torch.cuda.device_count():
            with pytest.raises(ConfigError, match="trainer=ddp: no GPU is visible here"):
                load_config([word])
            continue
        load_config([word, "dataset.batch_size=64", *facts])


def test_ddp_uses_all_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    visible_gpus.cache_clear()
    assert load_config(["trainer=ddp"]).trainer.devices == 8
    assert load_config(["trainer=ddp", "trainer.devices=2"]).trainer.devices == 2
    visible_gpus.cache_clear()


def test_every_registered_part_has_a_yaml_of_its_name() -> None:
    assert set(METHODS.names()) <= set(options_of("method", [CONF_DIR]))
    assert set(MODELS.names()) == set(options_of("model", [CONF_DIR]))
    assert set(NEURONS.names()) == set(options_of("neuron", [CONF_DIR]))


@pytest.mark.parametrize("file", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_yaml_files_are_readable(file: Path) -> None:
    assert yaml.safe_load(file.read_text()) is not None


def test_yaml_defaults_equal_the_schema_defaults() -> None:
    """The YAML default of a key equals its schema default."""
    from_yaml = load_config(["dataset=digits_events"]).model_dump(serialize_as_any=True)
    config = load_config(["dataset=digits_events"])
    for section in ("model", "method", "neuron", "norm", "scheduler"):
        part = getattr(config, section)
        required = {name for name, field in type(part).model_fields.items() if field.is_required()}
        bare = type(part).model_validate({key: value for key, value in from_yaml[section].items() if key in required})
        assert bare == part, section


def test_dataset_brings_model_and_time_steps_and_command_line_wins() -> None:
    events = load_config(["dataset=digits_events"])
    assert events.time_steps != load_config(["dataset=digits"]).time_steps
    assert load_config(["dataset=digits_events", "time_steps=3"]).time_steps == 3
    assert load_config(["time_steps=3", "dataset=digits_events"]).time_steps == 3


@pytest.fixture
def with_recipe(tmp_path: Path) -> str:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "fixed_sg_digits_spiking_cnn.yaml").write_text(
        "# @package _global_\n"
        "time_steps: 7\n"
        "optimizer: {lr: 0.07}\n"
        "recipe: {name: fixed_sg_digits_spiking_cnn, source: a paper, published: [{accuracy: 90.0}]}\n"
    )
    return str(tmp_path)


def test_recipe_is_picked_by_the_triple(with_recipe: str) -> None:
    chosen = load_config(["method=fixed_sg"], with_recipe)
    assert (chosen.time_steps, chosen.optimizer.lr) == (7, 0.07)
    assert chosen.recipe is not None
    assert [published.accuracy for published in chosen.recipe.published] == [90.0]
    assert load_config(["method=mpd_agl"], with_recipe).recipe is None


def test_command_line_wins_over_recipe(with_recipe: str) -> None:
    config = load_config(["method=fixed_sg", "optimizer.lr=0.2"], with_recipe)
    assert (config.optimizer.lr, config.time_steps) == (0.2, 7)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sed=1"], ["unknown key 'sed'", "'seed'"]),
        (["daataset=é"], ["unknown key 'daataset'. Did you mean 'dataset'?"]),
        (["daataset=é", "dataset=nope"], ["unknown key 'daataset'. Did you mean 'dataset'?"]),
        (["trainer.max_epoch=é (x"], ["'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"]),
        (["dataset=cifar10", "dataset.sourc=[é"], ["'dataset.sourc'. Did you mean 'dataset.source'?"]),
        (["=1"], ["=1: has no key. Write key=value."]),
        (["=é"], ["=é: has no key. Write key=value."]),
        (["+optimizer=adamw"], ["+optimizer=adamw: write optimizer=adamw, without the plus."]),
        (["optimiser.lr=1"], ["'optimizer.lr'"]),
        (["lr=1"], ["'optimizer.lr'"]),
        (["optimizer.lrr=1"], ["'optimizer.lr'"]),
        (["+method.typo=1"], ["unknown key 'method.typo'", "Allowed: method."]),
        (["+optimizer.lrr=1"], ["unknown key 'optimizer.lrr'. Did you mean 'optimizer.lr'?"]),
        (["+trainer.max_epoch=1"], ["'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"]),
        (["method=mpd_aggl"], ["unknown method 'mpd_aggl'", "'mpd_agl'", "fixed_sg"]),
        (["dataset=digit"], ["'digits'"]),
        (["optimizer=sdg"], ["'sgd'"]),
        (["method.name=mpd_aggl"], ["method.name", "'mpd_agl'"]),
        (["loss.name=ec"], ["loss.name: unknown loss 'ec'. Allowed: ce, tet, or an import path"]),
        (["trainer.precision=fp61"], ["trainer.precision=fp61", "fp32, bf16"]),
        (["optimizer.name=lion"], ["optimizer", "sgd, adamw, lamb"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1", "greater than 0"]),
        (["neuron.decay=1.0"], ["neuron.decay=1.0", "less than 1"]),
        (["seed=-1"], ["seed=-1"]),
        (["seed=abc"], ["seed=abc", "must be an integer"]),
        (["time_steps=0"], ["time_steps=0"]),
        (["time_steps=2.5"], ["time_steps=2.5", "integer"]),
        (["optimizer.lr=null"], ["optimizer.lr=null", "number"]),
        (["trainer.pack_spikes=true", "trainer.compile=true"], ["trainer.pack_spikes=true: not with trainer.compile"]),
        (["trainer.pack_spikes=true", "model.activation=relu"], ["model.activation=relu has no spikes"]),
        (["trainer.deterministic=maybe"], ["trainer.deterministic=maybe", "boolean"]),
        (["dataset=digits_events", "time_steps=999"], ["time_steps=999"]),
        (["model.depth=9"], ["model.depth=9", "8 x 8", "the maximum is model.depth=4"]),
        (["scheduler.warmup_epochs=99"], ["warmup_epochs=99", "trainer.max_epochs"]),
        (["trainer.devices=3"], ["dataset.batch_size=64", "multiple"]),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], ["nesterov"]),
        (["method=my_lab.nothing:Rule"], ["unknown method 'my_lab.nothing:Rule'"]),
        (["method.name=my_lab.nothing:Rule"], ["cannot be imported", "my_lab"]),
        (["seed=true"], ["seed=true: must be a number"]),
        (["optimizer.lr=true"], ["  optimizer.lr=true: must be a number"]),
        (["optimizer.lr=inf"], ["optimizer.lr=inf"]),
        (["optimizer.lr=1e300"], ["optimizer.lr=1e+300: must be at most 1e38"]),
        (
            ["model.width=99999999999999999999"],
            ["model.width=99999999999999999999: must be at most 9007199254740992 (2^53)"],
        ),
        (["model.width=1e300"], ["model.width=1e+300: is too large"]),
        (["+optimizer.groups={head:{lr:1e300}}"], ["optimizer.groups.head.lr=1e+300: must be at most"]),
        (["dataset.mean=[-1e300]", "dataset.std=[1]"], ["dataset.mean=[-1e+300]: must be at least -1e38"]),
        (["trainer.wait_seconds=1e300"], ["trainer.wait_seconds=1e+300: must be at most"]),
        (["optimizer=null"], ["unknown optimizer 'null'", "adamw, lamb, sgd"]),
        (["method.name=:X"], ["':X'"]),
        (["method.label=../x"], ["method.label=../x"]),
        (["method.width=1"], ["unknown key 'method.width'. Allowed: "]),
        (["optimizer=adamw", "optimizer.momentum=0.9"], ["unknown key 'optimizer.momentum'. Allowed: "]),
        (["seed"], ["seed: cannot be read", "key=value"]),
        (["~optimizer.lr"], ["optimizer.lr: must be given"]),
        (["runs_dir=${nothing}"], ["nothing"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_named(words: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(words)
    for part in said:
        assert part in str(error.value), str(error.value)


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(ConfigError) as error:
        load_config(["optimizer.lr=-1", "seed=-1", "+method.typo=1"])
    assert all(part in str(error.value) for part in ("optimizer.lr=-1", "seed=-1", "method.typo"))


def test_plain_form_validates_to_the_same_configuration() -> None:
    config = load_config(["dataset=digits_events", "logger=wandb", "optimizer=adamw"])
    assert validate(yaml.safe_load(yaml.safe_dump(config.plain()))) == config


@pytest.mark.parametrize(
    ("word", "found"),
    [("optimiser.lr", "optimizer.lr"), ("optimizer.nestrov", "optimizer.nesterov"), ("sede", "seed"), ("zzz", None)],
)
def test_nearest(word: str, found: str | None) -> None:
    assert nearest(word, ["seed", "optimizer", "optimizer.lr", "optimizer.nesterov", "trainer.devices"]) == found
