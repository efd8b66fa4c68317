"""Checks a composed configuration and reports each mistake on one line: key, value and nearest match."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from gradspike.config.losses import LOSSES
from gradspike.config.schema import ExperimentConfig
from gradspike.config.trust import outside, trust
from gradspike.config.wandb_options import ENVIRONMENT, RECORDED
from gradspike.data.options.pictures import for_images
from gradspike.data.registry import DATASETS
from gradspike.errors import ConfigError, did_you_mean, unknown
from gradspike.methods.options import LABEL
from gradspike.methods.registry import METHODS
from gradspike.models.registry import MODELS
from gradspike.nested import flat
from gradspike.neurons.registry import NEURONS
from gradspike.norms.registry import NORMS
from gradspike.registry import NO_BOOL, Registry, Strict
from gradspike.shown import counted, printable

PLUGGABLE: dict[str, Registry[Any]] = {
    registry.kind: registry for registry in (DATASETS, MODELS, METHODS, NEURONS, NORMS, LOSSES)
}


def validate(raw: Mapping[str, Any], recorded: bool = False) -> ExperimentConfig:
    """Check a composed configuration (plain containers).

    recorded: it is that of a run, which W&B's environment variables no longer change.
    Its parts outside gradspike are read, and may be imported later; `config.trust` checks those of a record before.
    Raises ConfigError that lists every mistake: the key, the value, what is allowed and the nearest match.
    """
    trust(outside(raw).values())
    if unreadable := [f"{key}={shown_value(text)}: {why}" for key, text in flat(raw) if (why := why_unreadable(text))]:
        raise ConfigError("The configuration is not valid:\n" + "\n".join(f"  {problem}" for problem in unreadable))
    problems: list[str] = []
    sections: dict[str, Any] = dict(raw)
    for section, registry in PLUGGABLE.items():
        options = raw.get(section)
        if not isinstance(options, Mapping) or "name" not in options:
            problems.append(f"{section}.name: must be one of {', '.join(registry.names())}")
            continue
        try:
            sections[section] = registry.config_class(registry.part(options)).model_validate(options)
        except ConfigError as error:
            problems.append(f"{section}.name: {error}")
        except ValidationError as error:
            problems.extend(_describe(error, options, registry.config_class(registry.part(options)), f"{section}."))
    try:
        # A section that failed above is not checked again, so that each mistake is reported once.
        config = ExperimentConfig.model_validate(sections, context={RECORDED: recorded})
    except ValidationError as error:
        failed = {name for name in PLUGGABLE if not isinstance(sections.get(name), Strict)}
        problems.extend(_describe(error, sections, ExperimentConfig, "", skip=failed))
    if not problems:
        problems.extend(_disagreements(config))
    if problems:
        raise ConfigError("The configuration is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))
    return config


def section_class(section: str, options: Mapping[str, Any]) -> type[Strict]:
    """The class of a section's options. Raises ConfigError for an unknown or unusable part."""
    if section in PLUGGABLE:
        found: type[Strict] = PLUGGABLE[section].config_class(Registry.part(options))
        return found
    return _member(_classes_of(ExperimentConfig.model_fields[section]), options)


def _member(candidates: list[type[Strict]], options: Any) -> type[Strict]:
    """The class whose name the options have."""
    names = ((one, getattr(one.model_fields["name"].annotation, "__args__", ())) for one in candidates[1:])
    return next((one for one, allowed in names if options["name"] in allowed), candidates[0])


def _disagreements(config: ExperimentConfig) -> Iterator[str]:
    """Values that are valid separately but not together."""
    try:
        config.dataset.check_time_steps(config.time_steps)
    except ValueError as error:
        yield f"time_steps={config.time_steps}: {error}"
    if config.model.needs_space and not config.dataset.has_space:
        yield (
            f"model={config.model.name} with dataset={config.dataset.name}: the network needs rows and columns, but "
            "the data set has only channels. Use model=spiking_mlp or spiking_rnn"
        )
    if config.model.feeds_back and config.time_steps < 2:
        yield (
            f"time_steps={config.time_steps}: model={config.model.name} feeds the spikes of one step back to the next. "
            "Use 2 or more, or model=spiking_mlp"
        )
    if config.model.feeds_back and config.engine in ("compiled", "triton"):
        yield (
            f"engine={config.engine}: has no kernels for model={config.model.name}, whose steps need the spikes of the "
            "step before. Use engine=eager, or engine=auto, which chooses it"
        )
    try:
        config.model.check_image_size(config.dataset.image_size)
    except ValueError as error:
        yield f"model={config.model.name} with dataset={config.dataset.name}: {error}"
    if config.scheduler.warmup_epochs >= config.trainer.max_epochs:
        yield (
            f"scheduler.warmup_epochs={config.scheduler.warmup_epochs}: must be less than trainer.max_epochs="
            f"{config.trainer.max_epochs}"
        )
    try:
        config.neuron.check_time_steps(config.time_steps)
    except ValueError as error:
        yield f"neuron.{error}"
    parts = config.trainer.world_size * config.trainer.accumulate
    if config.dataset.batch_size % parts:
        yield (
            f"dataset.batch_size={config.dataset.batch_size}: must be a multiple of {parts}, because an optimiser step "
            "divides it among all devices and accumulated parts"
        )
    share = config.dataset.batch_size // parts
    if (config.loss.mixup or config.loss.cutmix) and config.trainer.world_size > 1 and share % 2:
        yield (
            f"dataset.batch_size={config.dataset.batch_size}: must be a multiple of {2 * parts}, because mixup and "
            f"CutMix mix pairs and each rank gets {counted(share, 'sample')} at a time"
        )
    if config.trainer.pack_spikes:
        if config.trainer.compile:
            yield (
                "trainer.pack_spikes=true: not with trainer.compile=true, where the compiled network decides what it "
                "keeps. Use one of the two"
            )
        if config.model.activation == "relu":
            yield "trainer.pack_spikes=true: model.activation=relu has no spikes. Use trainer.pack_spikes=false"
    yield from _graph_problems(config)
    yield from _encoder_problems(config)


def _graph_problems(config: ExperimentConfig) -> Iterator[str]:
    """What CUDA graphs of training steps do not go with, as far as the configuration shows."""
    trainer = config.trainer
    if not trainer.cuda_graphs:
        return
    if trainer.world_size > 1:
        yield (
            "trainer.cuda_graphs=true: for one process; several exchange statistics and gradients within a step. Use "
            "trainer.cuda_graphs=false"
        )
    if trainer.accumulate > 1:
        yield (
            f"trainer.cuda_graphs=true: not with trainer.accumulate={trainer.accumulate}, because a graph writes the "
            "gradients of a part over those of the part before. Use one of the two"
        )


def _encoder_problems(config: ExperimentConfig) -> Iterator[str]:
    """Rate encoders need still images with values from 0 to 1."""
    encoder = config.model.encoder
    if encoder == "direct":
        return
    if config.dataset.kind == "frames":
        yield f"model.encoder={encoder}: needs still images, but '{config.dataset.name}' has frames. Use direct"
    elif getattr(config.dataset, "normalize", "unit") != "unit":
        yield f"model.encoder={encoder}: needs values from 0 to 1. Add dataset.normalize=unit"


def _describe(
    error: ValidationError,
    values: Any,
    schema: type[Strict],
    prefix: str,
    skip: frozenset[str] | set[str] = frozenset(),
) -> Iterator[str]:
    """One line per mistake of a pydantic error."""
    for detail in error.errors(include_url=False):
        path = [str(part) for part in detail["loc"]]
        if path and path[0] in skip:
            continue
        # pydantic includes the chosen member of a union in the path: optimizer.sgd.lr -> optimizer.lr
        if len(path) > 1 and _lookup(values, path[:2]) is _MISSING and _lookup(values, [path[0], "name"]) == path[1]:
            path.pop(1)
        path = [part for place, part in enumerate(path) if not (place and _MEMBER.search(part))]
        key = prefix + ".".join(path)
        if detail["type"] == "extra_forbidden":
            section = key.removesuffix(path[-1])
            allowed = [section + name for name in _fields(schema, values, path[:-1])]
            why = for_images(key)
            yield f"unknown key '{key}'. {why} Allowed: {', '.join(allowed)}" if why else unknown("key", key, allowed)
        elif detail["type"] == ENVIRONMENT:
            yield str(detail["msg"])
        elif detail["type"] == "value_error" and NO_BOOL in str(detail["msg"]):
            yield ".".join(filter(None, [key.rstrip("."), explain(detail)]))
        else:
            named = path and detail["type"] != "missing"
            shown = f"{key}={shown_value(detail['input'])}" if named else key.rstrip(".")
            yield f"{shown}: {explain(detail)}"


_MISSING = object()
_MEMBER = re.compile(r"^(int|float|str|bool|(tuple|list|dict|set)\[.*|constrained-.*|function-.*)$")
"""What pydantic calls a member of a union: sensor_size.constrained-int -> sensor_size."""


def _lookup(values: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        else:
            return _MISSING
    return values


def _fields(schema: type[Strict], values: Any, path: list[str]) -> set[str]:
    """Names of the keys allowed at `path` below `schema`."""
    if not path:
        return set(schema.model_fields)
    if path[0] not in schema.model_fields:
        # A key of a dictionary whose values have this schema, such as a pattern of optimizer.groups.
        return _fields(schema, _lookup(values, path[:1]), path[1:])
    chosen = _lookup(values, path)
    for candidate in _classes_of(schema.model_fields[path[0]]):
        if len(path) > 1:
            return _fields(candidate, _lookup(values, path[:1]), path[1:])
        name = candidate.model_fields.get("name")
        allowed = getattr(name.annotation, "__args__", ()) if name is not None else ()
        if not allowed or not isinstance(chosen, Mapping) or chosen.get("name") in allowed:
            return set(candidate.model_fields)
    return set()


def _classes_of(field: Any) -> list[type[Strict]]:
    """The option classes in a field's annotation."""
    options = getattr(field.annotation, "__args__", (field.annotation,))
    return [option for option in options if isinstance(option, type) and issubclass(option, Strict)]


def shown_value(value: Any) -> str:
    """A value in a message: as typed, and at most 60 characters of it."""
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else printable(str(value))
    return text if len(text) <= 60 else text[:57] + "..."


def why_unreadable(value: Any) -> str | None:
    """Why a value is no text that can be recorded: bytes that are not UTF-8, or a NUL. None for any other value."""
    if not isinstance(value, str):
        return None
    if "\0" in value:
        return "must not contain a NUL character"
    if value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value):
        return None
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        return f"cannot be read in this locale's encoding ({encoding}). Set LC_ALL=C.UTF-8, and PYTHONUTF8 not to 0"
    return "is not UTF-8. Rename it, or give a link with another name"


def explain(detail: Any) -> str:
    """A pydantic error in the terms of the command line, with the nearest match for a wrong word."""
    context = detail.get("ctx", {})
    if why := why_unreadable(detail["input"]):
        return why
    if detail["type"] == "missing" or detail["input"] == "???":
        return "must be given"
    if detail["type"] == "literal_error":
        allowed = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        return f"must be one of {', '.join(allowed)}.{did_you_mean(str(detail['input']), allowed)}"
    if detail["type"] == "union_tag_invalid":
        allowed = [word.strip(" '") for word in str(context["expected_tags"]).split(",")]
        return f"name must be one of {', '.join(allowed)}.{did_you_mean(str(context['tag']), allowed)}"
    if detail["type"] == "value_error":
        return str(context["error"])
    if detail["type"] == "int_parsing_size":
        return "is too large"
    if detail["type"] == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    if detail["type"] == "string_pattern_mismatch" and context["pattern"] == LABEL:
        return "may contain only letters, digits and the characters . _ -"
    message = re.sub(r"^\w+ should", "must", str(detail["msg"]))
    return message.partition(", unable to parse")[0].replace("a valid integer", "an integer").replace("valid ", "")
