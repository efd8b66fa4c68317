"""Recipes: their published accuracies, how a configuration deviates from its recipe, and the lines at a run's start.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from gradspike.config.marks import touches
from gradspike.config.schema import OPTIMIZERS, ExperimentConfig, PublishedConfig
from gradspike.errors import ConfigError
from gradspike.nested import flat
from gradspike.neurons.registry import NEURONS
from gradspike.norms.registry import NORMS
from gradspike.registry import Registry
from gradspike.touches import SHAPING, Touches

RECIPES = Path(__file__).resolve().parents[1] / "conf" / "recipe"

# Groups whose options a recipe may overwrite. Method, data set and model choose the recipe instead.
CHOICES = ("neuron", "norm", "loss", "optimizer", "scheduler", "trainer", "logger")

PARTS: dict[str, Registry[Any]] = {"neuron": NEURONS, "norm": NORMS}

SECTIONS = ("dataset", "model", "method", "neuron", "norm", "loss", "optimizer", "scheduler", "trainer")

# What a paper states about a run: not the format of images and numbers.
PUBLISHED = SHAPING - {Touches.FORM}


def published_for(config: ExperimentConfig) -> PublishedConfig | None:
    """The accuracy published for exactly this configuration, or None.

    The configuration meets all conditions of the number and otherwise changes the result in no way from the recipe.
    """
    if config.recipe is None or deviations(config):
        return None
    values = dict(flat(config.plain()))
    for published in config.recipe.published:
        if all(values.get(key) == value for key, value in published.when.items()):
            return published
    return None


def deviations(config: ExperimentConfig) -> list[str]:
    """How a configuration differs from its recipe, for example `trainer.max_epochs=3 instead of 150`.

    Keys that the recipe does not set are compared with their defaults. Keys in the condition of a published number are
    left out. Empty without a recipe and for a recipe outside this package.
    """
    recipe = config.recipe
    file = RECIPES / f"{recipe.name}.yaml" if recipe is not None else None
    if recipe is None or file is None or not file.is_file():
        return []
    settings = dict(flat(_settings(file)))
    conditions = {key for published in recipe.published for key in published.when}
    actual = dict(flat(config.plain()))
    found = [f"{config.label()}, not {recipe.name}"] if config.label() != recipe.name else []
    expected = {"time_steps": config.time_steps, **_defaults(config, actual), **settings}
    marks = touches(config.plain())
    for key, value in actual.items():
        if marks[key] not in PUBLISHED or key in conditions:
            continue
        if key not in expected:  # an entry of a dictionary, such as optimizer.groups
            found += [f"{key}={_shown(value)}, which the recipe does not set"] if value is not None else []
        elif value != expected[key]:
            found.append(f"{key}={_shown(value)} instead of {_shown(expected[key])}")
    return found


def _defaults(config: ExperimentConfig, actual: Mapping[str, Any]) -> dict[str, Any]:
    """All dotted keys and their defaults in the schema; a key without a default has its actual value."""
    defaults: dict[str, Any] = {}
    for section in SECTIONS:
        for key, field in type(getattr(config, section)).model_fields.items():
            if field.is_required():
                name = f"{section}.{key}"
                defaults[name] = actual[name]
                continue
            value = field.get_default(call_default_factory=True)
            plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            defaults.update(flat({section: {key: list(plain) if isinstance(plain, tuple) else plain}}))
    return defaults


def start_lines(config: ExperimentConfig) -> Iterator[str]:
    """The lines about the recipe at the start of a training."""
    recipe = config.recipe
    if recipe is None:
        others = related(config)
        hint = f"; to use one: {' or '.join(f'recipe={name}' for name in others)}" if others else ""
        yield f"recipe: none for {config.label()}; using the groups' defaults{hint}"
        return
    yield f"recipe: {recipe.name} ({recipe.source})"
    published = published_for(config)
    if published is not None:
        yield f"  published: {percent(published)}"
    else:
        reasons = deviations(config)
        why = f": {', '.join(reasons)}" if reasons else ""
        yield f"  published: no number for this configuration{why}"
    for note in recipe.notes:
        yield f"  note: {note}"


def percent(published: PublishedConfig) -> str:
    """`96.91 +- 0.12 %`."""
    spread = f" +- {published.spread:.2f}" if published.spread is not None else ""
    return f"{published.accuracy:.2f}{spread} %"


def related(config: ExperimentConfig) -> list[str]:
    """Recipes for the base method of the configuration's variant, on its data set and model."""
    ending = config.label().removeprefix(config.method_label())
    bases = (file.stem.removesuffix(ending) for file in sorted(RECIPES.glob(f"*{ending}.yaml")))
    return [f"{base}{ending}" for base in bases if config.method_label().startswith(f"{base}_")]


def unequal_recipes(configs: Sequence[ExperimentConfig]) -> str | None:
    """A warning if trials on the same data set and model have different recipes, or some have none."""
    recipes: dict[str, set[str]] = {}
    for config in configs:
        place = f"{config.dataset.name} with {config.model.name}"
        recipes.setdefault(place, set()).add(config.recipe.name if config.recipe else "none")
    for place, found in recipes.items():
        if len(found) > 1:
            return (
                f"trials on {place} have different recipes ({', '.join(sorted(found))}), so more than their methods "
                f"differs. For one budget for all, use recipe=none or one recipe: recipe={min(found - {'none'})}"
            )
    return None


def check_choices(words: list[str], composed: Mapping[str, Any], config_dirs: list[Path]) -> None:
    """Raise ConfigError if the recipe overwrites a typed group (`optimizer=adamw`).

    A recipe comes after all groups, so its values would silently replace the option's.
    """
    recipe = composed.get("recipe")
    name = recipe.get("name") if isinstance(recipe, Mapping) else None
    if name is None:
        return
    settings = dict(flat(_read(config_dirs, "recipe", str(name))))
    for word in words:
        group, _, option = word.lstrip("+").partition("=")
        if group not in CHOICES:
            continue
        typed = dict(flat({group: _read(config_dirs, group, option)}))
        lost = [key for key, value in typed.items() if key in settings and settings[key] != value]
        if lost:
            # Keys of the recipe's part that the typed one does not have.
            foreign = [f"~{key}" for key in settings if key.startswith(f"{group}.") and key not in typed]
            single = " ".join([f"{lost[0]}={_shown(typed[lost[0]])}", *foreign])
            raise ConfigError(
                f"{word}: the recipe {name} overwrites {', '.join(f'{key}={_shown(settings[key])}' for key in lost)}. "
                f"Set single values, as in {single}, or leave out the recipe: recipe=none"
            )


def drop_foreign_options(words: list[str], composed: Mapping[str, Any], config_dirs: list[Path]) -> None:
    """Remove from `composed` what a recipe that names another neuron, norm or optimiser leaves of the one in the group.

    Such an option is neither in the recipe nor typed, and the named part does not have it.
    """
    recipe = composed.get("recipe")
    name = recipe.get("name") if isinstance(recipe, Mapping) else None
    if name is None:
        return
    for section, own in _read(config_dirs, "recipe", str(name)).items():
        if not isinstance(own, dict) or "name" not in own or not isinstance(composed.get(section), dict):
            continue
        allowed = _options(section, composed[section])
        if allowed is None:
            continue
        typed = {word.lstrip("+~").partition("=")[0] for word in words}
        for key in list(composed[section]):
            if key not in allowed and key not in own and f"{section}.{key}" not in typed:
                del composed[section][key]


def _options(section: str, values: Mapping[str, Any]) -> Collection[str] | None:
    """The options of the part that a section names; None in other sections and for a mistyped name, which validation
    reports.
    """
    if section == "optimizer":
        kind = OPTIMIZERS.get(str(values.get("name")))
        return None if kind is None else kind.model_fields
    registry = PARTS.get(section)
    if registry is None:
        return None
    try:
        options: Collection[str] = registry.config_class(registry.part(values)).model_fields
    except ConfigError:
        return None
    return options


def _read(config_dirs: list[Path], group: str, option: str) -> dict[str, Any]:
    """The settings in the YAML file of a group's option; the last folder with such a file counts."""
    files = [folder / group / f"{option}.yaml" for folder in config_dirs]
    found = [file for file in files if file.is_file()]
    return _settings(found[-1]) if found else {}


def _settings(file: Path) -> dict[str, Any]:
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key not in ("defaults", "recipe")}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
