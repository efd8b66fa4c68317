"""A W&B sweep file and its schema. Reports all mistakes before anything starts. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveInt, StrictInt, ValidationError

from gradspike.config.validate import explain
from gradspike.errors import ConfigError, unknown, unknown_path
from gradspike.registry import Strict
from gradspike.tools.sweep.distributions import distribution_of
from gradspike.tools.sweep.parameters import Parameter
from gradspike.yaml_text import check_words

METRICS = ("accuracy", "loss", "firing_rate")
ENERGY = "energy_nj"
"""The estimated energy of an inference in nanojoules, as a second objective."""
UNSUPPORTED = {
    "controller": "the search runs where gradspike sweep runs",
    "scheduler": "the search is chosen by `method`",
    "metrics": "one metric only; write `metric`",
    "job": "name the script as `program`",
    "image_uri": "name the script as `program`",
    "apiVersion": "leave it out",
    "kind": "leave it out",
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class Metric(Strict):
    """The compared quantity: a number of the validation split, under its W&B name."""

    name: str
    goal: Literal["maximize", "minimize"]

    @property
    def checkpoint(self) -> Literal["last", "best"]:
        """Which value to compare: that of the last epoch or of the best checkpoint."""
        return "best" if self.name.startswith("val/best/") else "last"

    @property
    def quantity(self) -> str:
        """accuracy, loss or firing_rate."""
        return self.name.rpartition("/")[2]


class Ours(Strict):
    """`gradspike:`, the one key that W&B does not know. Its check of the file reports the key (docs/sweeps.md)."""

    average_over: Literal["seed"] | None = None
    """A trial is a set of all `parameters.seed.values`. Its objective is their mean, and it is pruned as one."""
    second: Metric | None = None
    """A second objective; the result of the sweep is a front of trials that no other one beats in both."""


class EarlyTerminate(Strict):
    """W&B's hyperband: after min_iter, min_iter * eta, ... epochs only the best 1/eta of the trials continue."""

    type: Literal["hyperband"]
    min_iter: PositiveInt
    eta: Annotated[StrictInt, Field(ge=2)] = 3


class SweepOptions(Strict):
    """The keys of the file except its parameters."""

    program: str
    method: Literal["grid", "random", "bayes"]
    command: list[str]
    metric: Metric = Metric(name="val/accuracy", goal="maximize")
    early_terminate: EarlyTerminate | None = None
    gradspike: Ours = Ours()
    run_cap: PositiveInt | None = None
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The objectives: one or two."""
        return (self.metric,) if self.gradspike.second is None else (self.metric, self.gradspike.second)


@dataclass(frozen=True)
class SweepFile:
    """A validated sweep file."""

    path: Path
    text: str
    options: SweepOptions
    parameters: dict[str, Parameter]
    raw_parameters: dict[str, Any]

    @property
    def swept(self) -> dict[str, Parameter]:
        """The parameters in which trials differ."""
        return {name: parameter for name, parameter in self.parameters.items() if parameter.varies}

    @property
    def searched(self) -> dict[str, Parameter]:
        """The swept parameters in which sets of trials differ: all but an averaged seed."""
        return {name: one for name, one in self.swept.items() if name != self.options.gradspike.average_over}

    @property
    def seeds(self) -> list[Any] | None:
        """The seeds of each set of trials; None if every trial counts by itself."""
        name = self.options.gradspike.average_over
        return None if name is None else self.parameters[name].grid()

    @property
    def constants(self) -> dict[str, Any]:
        """The values that all trials share."""
        fixed = {name: parameter for name, parameter in self.parameters.items() if not parameter.varies}
        return {name: parameter.examples()[0] for name, parameter in fixed.items()}


class _NoDuplicates(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which duplicate keys are errors; by default the last one would win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise ConfigError(f"line {key.start_mark.line + 1}: {key.value} appears twice.")
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


def read(path: Path) -> SweepFile:
    """Read and check a sweep file. Raises a ConfigError that lists all mistakes."""
    try:
        text = path.read_text(encoding="utf-8")
        check_words(text, times=True)
        raw = yaml.load(text, Loader=_NoDuplicates)
    except OSError as error:
        if not path.exists():
            raise ConfigError(unknown_path("sweep file", path)) from error
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: is not a sweep file (program, method, parameters, command).")
    raw = {str(key): value for key, value in raw.items()}
    listed = raw.pop("parameters", None)
    problems: list[str] = []
    parameters = dict(_parameters(listed, raw.get("method"), problems))
    try:
        options = SweepOptions.model_validate(raw)
    except ValidationError as error:
        problems += _problems(error)
    else:
        problems += _disagreements(options, parameters)
    if problems:
        raise ConfigError(f"{path} is not a valid sweep:\n" + "\n".join(f"  {problem}" for problem in problems))
    return SweepFile(path, text, options, parameters, dict(listed))


def _parameters(listed: Any, method: Any, problems: list[str]) -> Iterator[tuple[str, Parameter]]:
    if not isinstance(listed, dict) or not listed:
        problems.append("parameters: is missing. Example:  parameters: {seed: {values: [0, 1, 2]}}")
        return
    for key, options in listed.items():
        name = str(key)
        try:
            if not NAME.fullmatch(name):
                raise ConfigError(f"parameters.{name}: W&B allows only letters, digits and . _ - in a name.")
            if not isinstance(options, dict):
                raise ConfigError(f"parameters.{name}: write {{value: {options}}} or {{values: [...]}}")
            schema = distribution_of(name, options)
            parameter = schema.model_validate(options)
        except ConfigError as error:
            problems.append(str(error))
        except ValidationError as error:
            lines = [_describe(detail, schema, f"parameters.{name}") for detail in error.errors()]
            problems.extend(dict.fromkeys(lines))  # each member of a union complains
        else:
            problem = _unfit(parameter, method)
            if problem:
                problems.append(f"parameters.{name}: {problem}")
            yield name, parameter


def _unfit(parameter: Parameter, method: Any) -> str | None:
    """Why a method cannot vary this parameter, or None."""
    try:
        if method == "grid" and parameter.grid() is None:
            return "a grid needs values; list them, or use method: random"
    except ValueError as error:
        return str(error)
    if method == "bayes" and not parameter.searchable:
        return "method: bayes needs value, values, uniform, q_uniform, int_uniform or log_uniform_values"
    return None


def _problems(error: ValidationError) -> Iterator[str]:
    for detail in error.errors():
        path = [str(part) for part in detail["loc"]]
        parts: dict[str, type[Strict]] = {"metric": Metric, "early_terminate": EarlyTerminate, "gradspike": Ours}
        schema = parts.get(path[0]) if len(path) == 2 else Metric if len(path) > 2 else SweepOptions
        if detail["loc"] == ("command",) and detail["type"] == "missing":
            yield (
                "command: is missing. W&B's default writes --key=value, which Hydra cannot read. Write\n"
                "    command: ['${env}', '${interpreter}', '${program}', logger=wandb, '${args_no_hyphens}']"
            )
        elif path[-1] == "goal" and detail["type"] == "missing":
            yield f"{'.'.join(path)}: is missing. Write maximize or minimize; by default W&B would minimize"
        else:
            yield _describe(detail, schema or SweepOptions, ".".join(path[:-1]))


def _describe(detail: Any, schema: type[Strict], prefix: str) -> str:
    # Inside a parameter only the first part of the path is a key of the file; pydantic adds unions and indices.
    leaf = str(detail["loc"][0 if prefix.startswith("parameters.") else -1]) if detail["loc"] else ""
    key = f"{prefix}.{leaf}" if prefix and leaf else prefix or leaf
    if detail["type"] == "extra_forbidden":
        if not prefix and leaf in UNSUPPORTED:
            return f"{leaf}: is a key of W&B that this runner does not support; {UNSUPPORTED[leaf]}."
        allowed = [*schema.model_fields, *(["parameters"] if schema is SweepOptions else [])]
        return unknown("key", f"{prefix}.{leaf}" if prefix else leaf, allowed)
    if detail["type"] in ("float_type", "int_type") and isinstance(detail["input"], str):
        hint = " (YAML reads 1e-3 as text; write 1.0e-3)" if re.match(r"[-+]?\d+e", detail["input"]) else ""
        return f"{key}={detail['input']}: must be a number{hint}"
    return f"{key}: {explain(detail)}"


def _disagreements(options: SweepOptions, parameters: dict[str, Parameter]) -> Iterator[str]:
    name = options.metric.name
    allowed = [f"val/{part}{quantity}" for part in ("", "last/", "best/") for quantity in METRICS]
    if name not in allowed:
        why = " Trials are compared on validation data, never on the test split." if "test" in name else ""
        yield f"metric.name: {unknown('metric', name, allowed)}.{why}"
    yield from _own_disagreements(options, parameters, allowed)
    for name in ("resume", "runs_dir"):
        if name in parameters:
            yield f"parameters.{name}: the sweep sets it itself"


def _own_disagreements(
    options: SweepOptions, parameters: dict[str, Parameter], allowed: Sequence[str]
) -> Iterator[str]:
    """What `gradspike:` contradicts."""
    average, second = options.gradspike.average_over, options.gradspike.second
    seeds = parameters[average].grid() if average in parameters else None
    if average is not None and (seeds is None or len(seeds) < 2):
        yield f"gradspike.average_over: list the seeds, as in  parameters: {{{average}: {{values: [0, 1, 2]}}}}"
    if second is None:
        return
    if second.name not in (*allowed, ENERGY) or second.name == options.metric.name:
        others = [name for name in (*allowed, ENERGY) if name != options.metric.name]
        yield f"gradspike.second.name: {unknown('second metric', second.name, others)}"
    if options.early_terminate is not None:
        yield "early_terminate: a pruner compares one metric; leave out gradspike.second or early_terminate"
