"""The schema of the composed configuration: every key, its type, its range, and what must agree with what.

Light on purpose (pydantic only): a mistake is answered before torch is imported. Options of methods, models and data
sets are validated by the classes their registries name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from gradspike.data.dataset_config import DatasetConfig
from gradspike.data.registry import DATASETS
from gradspike.engine.registry import EngineName
from gradspike.errors import ConfigError, did_you_mean
from gradspike.methods.registry import METHODS, MethodConfig
from gradspike.models.registry import MODELS, ModelConfig
from gradspike.neuron_config import NeuronConfig, NormConfig
from gradspike.registry import Registry, Strict

PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class LossConfig(Strict):
    """The loss over the logits o[t], and the mixing of samples that softens its labels.

    One flat schema for all losses, since a recipe can set values but not switch groups. ce: cross entropy of the mean
    over time. tet (Deng et al., ICLR 2022): (1 - tet_lambda) mean_t CE(o[t], y) + tet_lambda MSE(o[t], tet_target).
    """

    name: Literal["ce", "tet"]
    label_smoothing: Fraction = 0.0
    tet_lambda: Annotated[float, Field(ge=0, le=1)] = 1e-3
    tet_target: float = 1.0
    mixup: NonNegativeFloat = 0.0
    """alpha of mixup (Zhang et al., ICLR 2018); 0 for none."""
    cutmix: NonNegativeFloat = 0.0
    """alpha of CutMix (Yun et al., ICCV 2019); 0 for none. With both, each batch draws one of them."""
    mix_probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the batches that are mixed, where mixup or cutmix is on."""


class GroupConfig(Strict):
    """What is different for the parameters whose names match a pattern; of several patterns the last one counts."""

    lr: PositiveFloat = 1.0
    """Factor on the learning rate."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay of these parameters; null: as elsewhere."""


class SgdConfig(Strict):
    """torch.optim.SGD."""

    name: Literal["sgd"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0
    momentum: Fraction = 0.9
    nesterov: bool = False
    decay_all: bool = False
    groups: dict[str, GroupConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs a momentum above 0")
        return self


class AdamWConfig(Strict):
    """torch.optim.AdamW."""

    name: Literal["adamw"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    decay_all: bool = False
    groups: dict[str, GroupConfig] = Field(default_factory=dict)


class SchedulerConfig(Strict):
    """Learning rate over training, as a fraction of the optimiser's: linear warm-up, then cosine or constant."""

    name: Literal["cosine", "constant"]
    warmup_epochs: NonNegativeInt = 0
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    interval: Literal["step", "epoch"] = "step"


class TrainerConfig(Strict):
    """How long, on what, and how exactly."""

    max_epochs: PositiveInt
    accumulate: PositiveInt = 1
    """Parts into which a batch is cut, one after the other through the network; the optimiser sees the whole batch."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of an exponential moving average of the weights, which is then what is evaluated. A plain mean of
    all steps until it reaches that far back."""
    compile: bool = False
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: PositiveInt = 1
    num_nodes: PositiveInt = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    gradient_clip: PositiveFloat | None = None
    deterministic: bool = True
    progress: Literal["auto", "bar", "lines", "none"] = "auto"

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""
        return self.devices * self.num_nodes


class FilesLoggerConfig(Strict):
    """Only the files of the run's folder."""

    name: Literal["files"]


class TensorBoardConfig(Strict):
    """TensorBoard event files inside the run's folder."""

    name: Literal["tensorboard"]


class WandbConfig(Strict):
    """Weights & Biases."""

    name: Literal["wandb"]
    project: Annotated[str, Field(min_length=1)] = "gradspike"
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    group: str | None = None
    tags: tuple[str, ...] = ()


class CheckpointConfig(Strict):
    """When to save besides the end of each epoch."""

    every_n_steps: PositiveInt | None = None


class ProbeConfig(Strict):
    """How often, and on how many samples, spiking layers are measured while they train; see `callbacks.probe`."""

    enabled: bool = True
    every_n_steps: PositiveInt = 100
    samples: PositiveInt = 16
    histogram_bins: Annotated[int, Field(ge=0, le=256)] = 16


class PublishedConfig(Strict):
    """A published accuracy (percent), its spread over seeds where known, and the settings it was reached with."""

    accuracy: float
    spread: float | None = None
    when: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Dotted keys of the configuration and their values, as {time_steps: 2}."""


class RecipeConfig(Strict):
    """Where a recipe's settings come from, and what accuracies were published with them."""

    name: str
    source: str
    published: tuple[PublishedConfig, ...] = ()
    notes: tuple[str, ...] = ()


OptimizerConfig = Annotated[SgdConfig | AdamWConfig, Field(discriminator="name")]
LoggerConfig = Annotated[FilesLoggerConfig | TensorBoardConfig | WandbConfig, Field(discriminator="name")]


class ExperimentConfig(Strict):
    """One run, completely. Everything that shapes its result is in here."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    time_steps: Annotated[int, Field(ge=1, le=1000)]
    engine: EngineName
    data_dir: PathText
    runs_dir: PathText
    resume: PathText | None = None
    recipe: RecipeConfig | None = None
    dataset: DatasetConfig
    model: ModelConfig
    method: MethodConfig
    neuron: NeuronConfig
    norm: NormConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    checkpoint: CheckpointConfig
    probe: ProbeConfig = ProbeConfig()

    def plain(self) -> dict[str, Any]:
        """The configuration as plain dicts, lists and scalars, the form in which it is saved."""
        plain: dict[str, Any] = self.model_dump(mode="json", serialize_as_any=True)
        return plain

    def label(self) -> str:
        """`<method>_<dataset>_<model>`, the middle of a run's name."""
        return f"{self.method_label()}_{short_name(self.dataset.name)}_{short_name(self.model.name)}"

    def method_label(self) -> str:
        """The name under which runs are grouped: a variant's label, else the method's name; `relu` for the ANN twin."""
        if self.model.activation == "relu":
            return "relu"
        return self.method.label or short_name(self.method.name)


def short_name(name: str) -> str:
    """A part's name as it can stand in a file name: the class alone of an import path."""
    return name.rpartition(":")[2]


_PLUGGABLE: dict[str, Registry[Any]] = {"dataset": DATASETS, "model": MODELS, "method": METHODS}


def validate(raw: Mapping[str, Any]) -> ExperimentConfig:
    """Check a composed configuration (plain containers).

    Raises ConfigError that lists every mistake: the key, the value, what is allowed and the nearest match.
    """
    problems: list[str] = []
    sections: dict[str, Any] = dict(raw)
    for section, registry in _PLUGGABLE.items():
        options = raw.get(section)
        if not isinstance(options, Mapping) or "name" not in options:
            problems.append(
                f"{section}: choose one of {', '.join(registry.names())}, as in {section}={registry.names()[0]}"
            )
            continue
        try:
            sections[section] = registry.config_class(registry.part(options)).model_validate(options)
        except ConfigError as error:
            problems.append(f"{section}.name: {error}")
        except ValidationError as error:
            problems.extend(_describe(error, options, registry.config_class(registry.part(options)), f"{section}."))
    try:
        # A section that failed above is checked no further, so that one mistake is told once.
        config = ExperimentConfig.model_validate(sections)
    except ValidationError as error:
        failed = {name for name in _PLUGGABLE if not isinstance(sections.get(name), Strict)}
        problems.extend(_describe(error, sections, ExperimentConfig, "", skip=failed))
    if not problems:
        problems.extend(_disagreements(config))
    if problems:
        raise ConfigError("The configuration is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))
    return config


def _disagreements(config: ExperimentConfig) -> Iterator[str]:
    """What is allowed by itself but not together."""
    try:
        config.dataset.check_time_steps(config.time_steps)
    except ValueError as error:
        yield f"time_steps={config.time_steps}: {error}"
    try:
        config.model.check_image_size(config.dataset.image_size)
    except ValueError as error:
        yield f"model={config.model.name} with dataset={config.dataset.name}: {error}"
    if config.scheduler.warmup_epochs >= config.trainer.max_epochs:
        yield (
            f"scheduler.warmup_epochs={config.scheduler.warmup_epochs}: must be less than trainer.max_epochs="
            f"{config.trainer.max_epochs}"
        )
    parts = config.trainer.world_size * config.trainer.accumulate
    if config.dataset.batch_size % parts:
        yield (
            f"dataset.batch_size={config.dataset.batch_size}: is what an optimiser step sees, over all devices and "
            f"accumulated parts together, and must be a multiple of their number, {parts}"
        )
    yield from _encoder_problems(config)


def _encoder_problems(config: ExperimentConfig) -> Iterator[str]:
    """Spikes made from values want values of 0 to 1; event frames are spikes already."""
    encoder = config.model.encoder
    if encoder == "direct":
        return
    if config.dataset.kind == "frames":
        yield f"model.encoder={encoder}: is for still pictures; '{config.dataset.name}' are frames. Use direct"
    elif getattr(config.dataset, "normalize", "unit") != "unit":
        yield f"model.encoder={encoder}: wants values of 0 to 1; add dataset.normalize=unit"


def _describe(
    error: ValidationError,
    values: Any,
    schema: type[Strict],
    prefix: str,
    skip: frozenset[str] | set[str] = frozenset(),
) -> Iterator[str]:
    """One line for each mistake of a pydantic error."""
    for detail in error.errors(include_url=False):
        path = [str(part) for part in detail["loc"]]
        if path and path[0] in skip:
            continue
        # pydantic puts the chosen member of a union into the path: optimizer.sgd.lr -> optimizer.lr
        if len(path) > 1 and _lookup(values, path[:2]) is _MISSING and _lookup(values, [path[0], "name"]) == path[1]:
            path.pop(1)
        key = prefix + ".".join(path)
        if detail["type"] == "extra_forbidden":
            siblings = sorted(_fields(schema, values, path[:-1]))
            yield f"{key}: there is no such key.{did_you_mean(path[-1], siblings)} Allowed: {', '.join(siblings)}"
        else:
            named = path and detail["type"] != "missing"
            shown = f"{key}={_shown(detail['input'])}" if named else key.rstrip(".")
            yield f"{shown}: {explain(detail)}"


_MISSING = object()


def _lookup(values: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        else:
            return _MISSING
    return values


def _fields(schema: type[Strict], values: Any, path: list[str]) -> set[str]:
    """Names allowed beside each other at `path` below `schema`."""
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
    """The config classes a field's annotation names."""
    options = getattr(field.annotation, "__args__", (field.annotation,))
    return [option for option in options if isinstance(option, type) and issubclass(option, Strict)]


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def explain(detail: Any) -> str:
    """Pydantic's sentence in the words of the command line, with the nearest match where a word is wanted."""
    context = detail.get("ctx", {})
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
    message = str(detail["msg"]).replace("Input should be", "must be")
    return message.partition(", unable to parse")[0].replace("a valid integer", "an integer").replace("valid ", "")
