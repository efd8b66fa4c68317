"""Every recipe composes, trains, names its source, and matches docs/recipes.md."""

from __future__ import annotations

import functools
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gradspike.config.compose import CONF_DIR, load_config
from gradspike.config.recipes import deviations, percent, published_for, start_lines, unequal_recipes
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.errors import ConfigError
from gradspike.nested import flat
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.build import build_model
from gradspike.training.losses import build_loss
from gradspike.training.optim import build_optimizer
from helpers.command import ROOT, command

FILES = sorted(file for file in (CONF_DIR / "recipe").glob("*.yaml") if file.stem != "none")
NAMES = [file.stem for file in FILES]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
METHODS = "mpd_agl|ds_atgo|lsg|psg|fixed_sg|asgl|trsg"
DATASETS = "cifar100|cifar10dvs|cifar10|tiny_imagenet|imagenet"


def parts(name: str) -> tuple[str, str, str]:
    """Method, data set and model in a recipe's name."""
    found = re.fullmatch(rf"({METHODS})_({DATASETS})_(\w+)", name)
    assert found, name
    return found[1], found[2], found[3]


@cache
def composed(name: str, *more: str) -> ExperimentConfig:
    method, dataset, model = parts(name)
    return load_config([f"method={method}", f"dataset={dataset}", f"model={model}", *more])


def edited(config: ExperimentConfig, values: dict[str, Any]) -> ExperimentConfig:
    """The configuration with dotted keys set as on the command line; much faster than composing it again."""
    plain = config.plain()
    for key, value in values.items():
        *sections, last = key.split(".")
        functools.reduce(dict.__getitem__, sections, plain)[last] = value
    return validate(plain)


def settings(name: str) -> dict[str, Any]:
    values = yaml.safe_load((CONF_DIR / "recipe" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key != "recipe"}


def word(key: str, value: Any) -> str:
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def test_every_published_row_has_its_recipe() -> None:
    cifars = ("cifar10", "cifar100")
    cifar = [f"{method}_{data}_resnet19" for method in ("mpd_agl", "ds_atgo", "lsg", "psg", "trsg") for data in cifars]
    events = [f"{method}_cifar10dvs_vggsnn" for method in ("mpd_agl", "ds_atgo", "lsg", "asgl")]
    others = ["mpd_agl_tiny_imagenet_vgg13", "ds_atgo_imagenet_sew_resnet18", "fixed_sg_cifar10_resnet19"]
    others.append("asgl_cifar100_sew_resnet18")
    transformers = [f"fixed_sg_{data}_{net}" for data in cifars for net in ("spikformer", "qkformer", "sdt")]
    membrane = [f"fixed_sg_imagenet_ms_resnet{depth}" for depth in (18, 34)]
    assert sorted([*cifar, *events, *others, *transformers, *membrane]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_picked_and_wins_over_data_set_and_groups(name: str) -> None:
    config = composed(name)
    assert config.recipe is not None
    assert config.recipe.name == name == config.label()
    assert config.recipe.source
    values = dict(flat(config.plain()))
    assert {key: values[key] for key, _ in flat(settings(name))} == dict(flat(settings(name)))
    assert set(settings(name)) >= {"time_steps", "trainer", "dataset", "loss", "optimizer", "scheduler", "norm"}
    # Others fit every method.
    assert ("method" in settings(name)) == name.startswith(("fixed_sg", "asgl", "trsg"))
    assert config.dataset.model_dump()["val_fraction"] == 0
    method, dataset, model = parts(name)
    default = load_config([f"dataset={dataset}", "recipe=none"]).model.name
    chosen = [] if model == default else [f"model={model}"]
    assert load_config([f"method={method}", f"dataset={dataset}", *chosen]) == config


@pytest.mark.parametrize("name", NAMES)
def test_published_numbers_belong_to_configurations_that_exist(name: str) -> None:
    recipe = composed(name).recipe
    assert recipe is not None
    config = composed(name)
    for published in recipe.published:
        assert published_for(edited(config, published.when)) == published
    assert (published_for(config) is None) == (recipe.published == ())
    assert deviations(config) == []
    width = ("model.mlp_ratio", 2.0) if "dim" in type(config.model).model_fields else ("model.width", 0.25)
    changes = {"trainer.max_epochs": 30, **dict([width]), "model.activation": "relu", "optimizer.lr": 0.05}
    for key, value in {**changes, "time_steps": 3, "dataset.train_per_class": 10}.items():
        assert published_for(edited(config, {key: value})) is None
    groups = edited(config, {"optimizer.groups": {"head.*": {"lr": 10.0}}})
    assert published_for(groups) is None
    assert "optimizer.groups.head.*.lr=10, which the recipe does not set" in deviations(groups)
    free = {"trainer.precision": "bf16", "dataset.workers": 2, "seed": 5, "runs_dir": "elsewhere"}
    assert published_for(edited(config, free)) == published_for(config)


DIMS = {"spikformer": (192, 1, 2), "sdt": (32, 1, 2), "qkformer": (64, 3, 4)}
"""Channels, blocks and heads of small transformers; heads of Spikformer with fewer channels are silent at first."""

SMALL = {"imagenet": ["dataset.image_size=64", "model.stem=imagenet"], "tiny_imagenet": ["dataset.image_size=32"]}


@pytest.mark.parametrize("name", NAMES)
def test_two_training_steps(name: str) -> None:
    """The network of the recipe, small and with two time steps, learns with the recipe's loss, optimiser and norm
    form.
    """
    _, dataset, model_name = parts(name)
    small = [*SMALL.get(dataset, ["dataset.image_size=16"])]
    if model_name in DIMS:
        small += [
            f"model.{key}={value}" for key, value in zip(("dim", "depth", "heads"), DIMS[model_name], strict=True)
        ]
    else:
        small.append("model.width=0.0625")
    config = composed(name, "time_steps=2", "engine=eager", *small)
    torch.manual_seed(0)
    # In float64, because a surrogate as wide as that of asgl's alpha=5 leaves early layers tiny gradients.
    model = build_model(config).double()
    criterion, optimizer = build_loss(config.loss), build_optimizer(config.optimizer, model)
    gain = config.method.v_threshold if config.norm.name == "tdbn_gain" else 1.0
    norms = [layer.norm for layer in model.modules() if isinstance(layer, SpikingNorm) and layer.norm is not None]
    assert norms
    for norm in norms:
        assert torch.equal(norm.weight, torch.full_like(norm.weight, gain))
    decays = {config.optimizer.weight_decay} | (set() if config.optimizer.decay_all else {0.0})
    assert {group["weight_decay"] for group in optimizer.param_groups} == decays

    size = (6, config.dataset.channels, config.dataset.image_size, config.dataset.image_size)
    shape = size if config.dataset.kind == "image" else (config.time_steps, *size)
    inputs = torch.rand(shape, dtype=torch.float64)
    labels = torch.arange(6) % config.dataset.classes
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        logits = model(inputs)
        assert logits.shape == (config.time_steps, 6, config.dataset.classes)
        loss = criterion(logits, labels)
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert all(changed)


def test_command_line_wins_and_a_group_that_would_be_overwritten_is_refused() -> None:
    triple = ["method=ds_atgo", "dataset=cifar10"]
    config = load_config([*triple, "optimizer.lr=0.02", "loss.name=tet", "trainer=fast", "logger=tensorboard"])
    assert (config.optimizer.lr, config.loss.name, config.trainer.precision) == (0.02, "tet", "bf16")
    assert config.trainer.max_epochs == 400
    assert load_config([*triple, "optimizer=adamw", "recipe=none"]).optimizer.name == "adamw"
    for lost in ("optimizer=adamw", "scheduler=constant", "neuron=lif", "loss=tet"):
        with pytest.raises(ConfigError) as error:
            load_config([*triple, lost])
        assert lost in str(error.value)
        assert "ds_atgo_cifar10_resnet19" in str(error.value)
        assert "recipe=none" in str(error.value)


@pytest.mark.parametrize("without", ["recipe=none", "~recipe"])
def test_without_recipe(without: str) -> None:
    config = load_config(["method=ds_atgo", "dataset=cifar10", without])
    assert config.recipe is None
    assert config == load_config(["method=ds_atgo", "dataset=cifar10", "recipe=none"])
    assert (config.trainer.max_epochs, config.loss.label_smoothing) == (150, 0.0)
    assert config.dataset.model_dump()["val_fraction"] == 0.1
    with pytest.raises(ConfigError, match="'ds_atgo_cifar10_resnet19'"):
        load_config(["method=ds_atgo", "dataset=cifar10", "recipe=ds_atgo_cifar10_resnet18"])


def test_variant_with_the_recipe_of_its_method() -> None:
    variant = ["method=ds_atgo_at", "dataset=cifar10"]
    (line,) = start_lines(load_config(variant))
    assert line.startswith("recipe: none for ds_atgo_at_cifar10_resnet19")
    assert line.endswith("to use one: recipe=ds_atgo_cifar10_resnet19")
    (line,) = start_lines(load_config(["method=psg_pda", "dataset=cifar100"]))
    assert line.endswith("recipe=psg_cifar100_resnet19")
    (line,) = start_lines(load_config(["method=ds_atgo", "dataset=digits"]))
    assert line.endswith("using the groups' defaults")

    config = load_config([*variant, "recipe=ds_atgo_cifar10_resnet19"])
    assert (config.trainer.max_epochs, config.loss.label_smoothing) == (400, 0.1)
    assert published_for(config) is None
    said = "\n".join(start_lines(config))
    assert "no number for this configuration: ds_atgo_at_cifar10_resnet19, not ds_atgo_cifar10_resnet19" in said
    assert "method.tgo=false instead of true" in said


def test_one_recipe_for_all_methods() -> None:
    """The comparison recommended in docs/recipes.md: only the method differs."""
    configs = [
        load_config([f"method={method}", "dataset=cifar10", "recipe=mpd_agl_cifar10_resnet19"]).plain()
        for method in ("fixed_sg", "lsg", "mpd_agl", "ds_atgo", "psg")
    ]
    assert [config["method"]["v_threshold"] for config in configs] == [1.0, 0.5, 0.5, 1.0, 0.5]
    for config in configs:
        del config["method"]
    assert all(config == configs[0] for config in configs)


def test_unequal_recipes_of_a_comparison_are_noticed(tmp_path: Path) -> None:
    trials = [["method=mpd_agl", "dataset=cifar10"], ["method=ds_atgo", "dataset=cifar10"]]
    warning = unequal_recipes([load_config(trial) for trial in trials])
    assert warning is not None
    assert "ds_atgo_cifar10_resnet19, mpd_agl_cifar10_resnet19" in warning
    assert "recipe=none" in warning
    variants = [load_config([f"method={method}", "dataset=cifar10"]) for method in ("ds_atgo", "ds_atgo_at")]
    assert "ds_atgo_cifar10_resnet19, none" in (unequal_recipes(variants) or "")
    assert unequal_recipes([load_config([*trial, "recipe=none"]) for trial in trials]) is None
    assert unequal_recipes([load_config(["dataset=cifar10"]), load_config(["dataset=cifar100"])]) is None

    words = ["-m", "method=mpd_agl,ds_atgo", "dataset=cifar10", "data_dir=/no/such/place", f"runs_dir={tmp_path}"]
    result = command("train", *words)
    assert result.stderr.startswith("Note: trials on cifar10 with resnet19 have different recipes")
    assert "Traceback" not in result.stderr
    assert "cannot be combined" in command("train", *words, "--cfg", "job").stderr


def test_messages_at_the_start() -> None:
    lines = list(start_lines(load_config(["method=ds_atgo", "dataset=cifar10"])))
    assert lines[0].startswith("recipe: ds_atgo_cifar10_resnet19 (Jiang et al., AAAI 2026")
    assert lines[1] == "  published: 96.91 +- 0.12 %"
    assert any("last epoch is reported" in line for line in lines)
    lines = list(start_lines(load_config(["method=ds_atgo", "dataset=cifar10", "trainer.max_epochs=3"])))
    assert lines[1] == "  published: no number for this configuration: trainer.max_epochs=3 instead of 400"


def test_recipe_of_ones_own(tmp_path: Path) -> None:
    """A user's recipe: chosen, refused with a conflicting group, its numbers matched by conditions."""
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "lsg_digits_spiking_cnn.yaml").write_text(
        "# @package _global_\n"
        "optimizer: {lr: 0.07}\n"
        "recipe: {name: lsg_digits_spiking_cnn, source: mine, published: [{accuracy: 9.5, when: {time_steps: 4}}]}\n"
    )
    mine = load_config(["method=lsg"], str(tmp_path))
    published = published_for(mine)
    assert published is not None
    assert percent(published) == "9.50 %"
    assert published_for(load_config(["method=lsg", "time_steps=5"], str(tmp_path))) is None
    with pytest.raises(ConfigError, match=r"optimizer.lr=0.07"):
        load_config(["method=lsg", "optimizer=adamw"], str(tmp_path))


def test_refused_group_as_a_command() -> None:
    result = command("train", "method=ds_atgo", "dataset=cifar10", "optimizer=adamw")
    assert result.returncode == 2
    assert "recipe=none" in result.stderr
    assert "Traceback" not in result.stderr


def documented() -> dict[str, str]:
    """Recipe -> its row in the table of docs/recipes.md."""
    rows = [line for line in PAGE.splitlines() if re.match(rf"\| `({METHODS})` ", line)]
    return {"_".join(re.findall(r"`(\w+)`", row)[:3]): row for row in rows}


def row(name: str) -> str:
    config = composed(name)
    assert config.recipe is not None
    loss = config.loss.name + (f", smoothing {config.loss.label_smoothing:g}" if config.loss.label_smoothing else "")
    numbers, values = [], dict(flat(config.plain()))
    for published in config.recipe.published:
        differs = [word(key, value) for key, value in published.when.items() if values[key] != value]
        numbers.append(percent(published).removesuffix(" %") + (f" (`{' '.join(differs)}`)" if differs else ""))
    method, dataset, model = parts(name)
    cells = [
        *(f"`{part}`" for part in (method, dataset, model)),
        str(config.time_steps),
        str(config.trainer.max_epochs),
        f"{config.optimizer.weight_decay:g}",
        loss,
        ", ".join(numbers) or "not available",
        config.recipe.source,
    ]
    return f"| {' | '.join(cells)} |"


def test_documented_table_equals_the_files() -> None:
    assert documented() == {name: row(name) for name in NAMES}


def test_a_recipe_may_name_another_neuron_and_norm() -> None:
    """Options that only the default ones have are dropped, unless they are typed."""
    pair = ["method=trsg", "dataset=cifar10"]
    config = load_config(pair)
    assert (config.neuron.name, config.norm.name) == ("trsg", "bn")
    assert "alpha" not in config.norm.model_dump()
    with pytest.raises(ConfigError, match=r"unknown key 'norm\.alpha'"):
        load_config([*pair, "norm.alpha=2"])
    assert load_config([*pair, "norm.name=tdbn", "norm.alpha=2"]).norm.model_dump()["alpha"] == 2
    with pytest.raises(ConfigError, match=r"norm\.name: .*Did you mean 'tdbn'"):
        load_config([*pair, "norm.name=tdb"])


def test_a_norm_that_the_recipe_overwrites_is_refused_with_the_words_to_type() -> None:
    """The words include the removal of options that the typed norm does not have."""
    triple = ["method=mpd_agl", "dataset=cifar10"]
    with pytest.raises(ConfigError, match=re.escape("as in norm.name=tebn ~norm.alpha, or leave out the recipe")):
        load_config([*triple, "norm=tebn"])
    config = load_config([*triple, "norm.name=tebn", "~norm.alpha"])
    assert config.norm.name == "tebn"
    assert config.recipe is not None
    assert "norm.name=tebn instead of tdbn" in deviations(config)


HOSTILE = ("my recipe", "a'b", 'a"b', "[x]", "$HOME", "a?b", "a#b", "a%20b", "1", "true", "a=b", "(x)", "-x", "~x")
HOSTILE += ("a\\b", "*", "007", " lead", "tail ", "\u65e5\u672c", "e\u0301", "x.y")


def write_recipe(folder: Path, name: str) -> None:
    (folder / "recipe").mkdir(parents=True)
    values = {"optimizer": {"lr": 0.07}, "recipe": {"name": name, "source": "mine"}}
    text = yaml.safe_dump(values, allow_unicode=True)
    (folder / "recipe" / f"{name}.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")


@pytest.mark.parametrize("name", HOSTILE)
def test_recipes_of_any_name(tmp_path: Path, name: str) -> None:
    write_recipe(tmp_path / "jos\u00e9 (lab)", name)
    config = load_config([f"recipe={name}"], str(tmp_path / "jos\u00e9 (lab)"))
    assert config.recipe is not None
    assert (config.recipe.name, config.optimizer.lr) == (name, 0.07)
    assert next(start_lines(config)) == f"recipe: {name} (mine)"


@pytest.mark.parametrize("name", ["a,b", "{x}", "null", "a,b,{}"])
def test_the_quotes_that_the_name_of_a_recipe_needs_are_printed(tmp_path: Path, name: str) -> None:
    write_recipe(tmp_path / "conf", name)
    with pytest.raises(ConfigError, match="Quote it: ") as error:
        load_config([f"recipe={name}"], str(tmp_path / "conf"))
    (word,) = shlex.split(str(error.value).rpartition("Quote it: ")[2])
    config = load_config([word], str(tmp_path / "conf"))
    assert config.recipe is not None
    assert config.recipe.name == name
