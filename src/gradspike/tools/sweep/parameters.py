"""The parameters of a W&B sweep file: which distributions there are and how a value is drawn from them.

Names and meaning are W&B's (docs.wandb.ai, "Sweep configuration options"). What W&B knows and this runner does not is
refused with a reason; nothing is ignored.
"""

from __future__ import annotations

import math
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictFloat, StrictInt, model_validator

from gradspike.errors import ConfigError, did_you_mean
from gradspike.registry import Strict

Number = StrictInt | StrictFloat
Positive = Annotated[Number, Field(gt=0)]

REFUSED = {
    "log_uniform": "its min and max are exponents; write log_uniform_values with the values themselves",
    "q_log_uniform": "its min and max are exponents; write q_log_uniform_values with the values themselves",
    "inv_log_uniform": "this runner has no such distribution; write log_uniform_values",
    "inv_log_uniform_values": "this runner has no such distribution; write log_uniform_values",
    "beta": "this runner has no such distribution; write uniform",
    "q_beta": "this runner has no such distribution; write q_uniform",
}


class Parameter(Strict):
    """One parameter. `grid()` lists its values where it has finitely many; `draw` takes one at random."""

    searchable: ClassVar[bool] = True
    """Whether a bayes search can propose values of it."""

    def grid(self) -> list[Any] | None:
        """Every value, or None where there is no end of them."""
        return None

    def draw(self, random: Random) -> Any:
        """One value."""
        raise NotImplementedError

    def examples(self) -> list[Any]:
        """Values to try the configuration with: all of them, or the ends."""
        return self.grid() or [self.draw(Random(seed)) for seed in range(2)]


class Constant(Parameter):
    """`value: x`."""

    value: Any
    distribution: Literal["constant"] = "constant"

    @model_validator(mode="after")
    def _written(self) -> Constant:
        _check_written([self.value])
        return self

    def grid(self) -> list[Any]:
        """The value."""
        return [self.value]

    def draw(self, random: Random) -> Any:
        """The value."""
        return self.value


class Categorical(Parameter):
    """`values: [...]`, with `probabilities` for random search."""

    values: Annotated[list[Any], Field(min_length=1)]
    probabilities: list[Annotated[Number, Field(ge=0)]] | None = None
    distribution: Literal["categorical", "categorical_w_probabilities"] = "categorical"

    @model_validator(mode="after")
    def _agree(self) -> Categorical:
        _check_written(self.values)
        texts = [str(value) for value in self.values]
        twice = sorted({text for text in texts if texts.count(text) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice in values")
        if self.probabilities is not None and len(self.probabilities) != len(self.values):
            raise ValueError(f"{len(self.values)} values but {len(self.probabilities)} probabilities")
        if self.probabilities is not None and not sum(self.probabilities) > 0:
            raise ValueError("probabilities must not all be 0")
        return self

    def grid(self) -> list[Any] | None:
        """The values, unless they have probabilities."""
        return self.values if self.probabilities is None else None

    def draw(self, random: Random) -> Any:
        """One of the values."""
        return random.choices(self.values, self.probabilities)[0]

    def examples(self) -> list[Any]:
        """All of them."""
        return self.values


class Bounded(Parameter):
    """Anything between `min` and `max`, both included."""

    min: Number
    max: Number

    @model_validator(mode="after")
    def _order(self) -> Bounded:
        if not self.min < self.max:
            raise ValueError(f"min={self.min} must be less than max={self.max}")
        return self

    def examples(self) -> list[Any]:
        """The two ends."""
        return [self.min, self.max]

    def clamped(self, value: Any) -> Any:
        """`value` moved to the nearest end where rounding has taken it outside."""
        return min(max(value, self.min), self.max)


class IntUniform(Bounded):
    """Integers, each as likely as the other."""

    min: StrictInt
    max: StrictInt
    distribution: Literal["int_uniform"] = "int_uniform"

    def grid(self) -> list[Any]:
        """All integers."""
        return list(range(self.min, self.max + 1))

    def draw(self, random: Random) -> Any:
        """One integer."""
        return random.randint(self.min, self.max)

    def examples(self) -> list[Any]:
        """The two ends."""
        return [self.min, self.max]


class Uniform(Bounded):
    """Real numbers, each as likely as the other."""

    distribution: Literal["uniform"] = "uniform"

    def draw(self, random: Random) -> Any:
        """One number."""
        return self.clamped(short(random.uniform(self.min, self.max)))


class QUniform(Bounded):
    """Multiples of `q`."""

    q: Positive = 1
    distribution: Literal["q_uniform"]

    def grid(self) -> list[Any]:
        """All multiples of q in the range."""
        first, last = math.ceil(self.min / self.q - 1e-9), math.floor(self.max / self.q + 1e-9)
        return [quantised(step * self.q, self.q) for step in range(first, last + 1)]

    @model_validator(mode="after")
    def _not_empty(self) -> QUniform:
        if not self.grid():
            raise ValueError(f"there is no multiple of q={self.q} between min={self.min} and max={self.max}")
        return self

    def draw(self, random: Random) -> Any:
        """One multiple of q."""
        return random.choice(self.grid())


class LogUniformValues(Bounded):
    """Real numbers whose logarithm is uniform; min and max are the values themselves."""

    min: Positive
    distribution: Literal["log_uniform_values"]

    def draw(self, random: Random) -> Any:
        """One number."""
        return self.clamped(short(math.exp(random.uniform(math.log(self.min), math.log(self.max)))))


class QLogUniformValues(LogUniformValues):
    """Multiples of `q` whose logarithm is nearly uniform."""

    searchable = False
    q: Positive = 1
    distribution: Literal["q_log_uniform_values"]  # type: ignore[assignment]

    def draw(self, random: Random) -> Any:
        """One multiple of q."""
        return quantised(super().draw(random), self.q)


class Normal(Parameter):
    """Normal with mean `mu` and standard deviation `sigma`."""

    searchable = False
    mu: Number = 0.0
    sigma: Annotated[Number, Field(gt=0)] = 1.0
    distribution: Literal["normal"]

    def draw(self, random: Random) -> Any:
        """One number."""
        return short(random.gauss(self.mu, self.sigma))


class QNormal(Normal):
    """Normal, rounded to multiples of `q`."""

    q: Positive = 1
    distribution: Literal["q_normal"]  # type: ignore[assignment]

    def draw(self, random: Random) -> Any:
        """One multiple of q."""
        return quantised(super().draw(random), self.q)


class LogNormal(Normal):
    """exp of a normal with mean `mu` and standard deviation `sigma`."""

    distribution: Literal["log_normal"]  # type: ignore[assignment]

    def draw(self, random: Random) -> Any:
        """One number."""
        return short(math.exp(random.gauss(self.mu, self.sigma)))


class QLogNormal(LogNormal):
    """The same, rounded to multiples of `q`."""

    q: Positive = 1
    distribution: Literal["q_log_normal"]  # type: ignore[assignment]

    def draw(self, random: Random) -> Any:
        """One multiple of q."""
        return quantised(super().draw(random), self.q)


DISTRIBUTIONS: dict[str, type[Parameter]] = {
    "constant": Constant,
    "categorical": Categorical,
    "categorical_w_probabilities": Categorical,
    "int_uniform": IntUniform,
    "uniform": Uniform,
    "q_uniform": QUniform,
    "log_uniform_values": LogUniformValues,
    "q_log_uniform_values": QLogUniformValues,
    "normal": Normal,
    "q_normal": QNormal,
    "log_normal": LogNormal,
    "q_log_normal": QLogNormal,
}


def distribution_of(name: str, options: dict[str, Any]) -> type[Parameter]:
    """The class of a parameter, inferred as W&B does where `distribution` is left out. Raises ConfigError."""
    if "parameters" in options:
        inner = next(iter(options["parameters"] or {"key": None}))
        raise ConfigError(
            f"parameters.{name}: is nested, which W&B's agent writes as {name}={{...}} and Hydra cannot read. Write "
            f"dotted names: {name}.{inner}"
        )
    kind = options.get("distribution")
    if kind in REFUSED:
        raise ConfigError(f"parameters.{name}: distribution={kind}: {REFUSED[kind]}.")
    if kind is not None:
        if kind not in DISTRIBUTIONS:
            raise ConfigError(
                f"parameters.{name}: distribution={kind}: there is none.{did_you_mean(str(kind), DISTRIBUTIONS)} "
                f"Allowed: {', '.join(DISTRIBUTIONS)}"
            )
        return DISTRIBUTIONS[kind]
    if "value" in options:
        return Constant
    if "values" in options:
        return Categorical
    if "min" in options or "max" in options:
        whole = all(type(options.get(end, 0)) is int for end in ("min", "max"))
        return IntUniform if whole else Uniform
    raise ConfigError(f"parameters.{name}: write value: x, values: [x, y], or min: and max:")


def short(value: float) -> float:
    """`value` to six digits, enough for any setting and readable on a command line."""
    return float(f"{value:.6g}")


def quantised(value: float, q: float) -> Any:
    """The multiple of `q` nearest to `value`; an integer where q is one."""
    steps = round(value / q)
    return steps * q if isinstance(q, int) else short(steps * q)


def _check_written(values: list[Any]) -> None:
    """A value is written into a command line, where W&B's agent would write null as None and Hydra read a word."""
    for value in values:
        if value is None:
            raise ValueError(
                "null cannot be passed through W&B's agent, which writes None; use the quoted word 'null' instead"
            )
        if isinstance(value, dict):
            raise ValueError("a mapping cannot be passed through W&B's agent; write one dotted name for each entry")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
