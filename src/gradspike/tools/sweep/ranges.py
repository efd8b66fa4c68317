"""Parameters between `min` and `max`, both included."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import StrictInt, model_validator
from typing_extensions import override

from gradspike.tools.sweep.parameters import Number, Parameter, Positive, quantised, short

if TYPE_CHECKING:
    from optuna.trial import Trial


MOST_VALUES = 1_000_000


def _counted(values: range) -> range:
    """`values`. Raises ValueError if a list of them would be too long."""
    if values.stop - values.start > MOST_VALUES:
        raise ValueError(f"{values.stop - values.start:,} values are too many; at most {MOST_VALUES:,}")
    return values


class Bounded(Parameter):
    """A parameter with a `min` and a `max`."""

    min: Number
    max: Number

    @model_validator(mode="after")
    def _order(self) -> Bounded:
        if not self.min < self.max:
            raise ValueError(f"min={self.min} must be less than max={self.max}")
        return self

    @override
    def examples(self) -> list[Any]:
        return [self.min, self.max]

    def clamped(self, value: Any) -> Any:
        """`value`, moved to the nearest end if rounding moved it outside."""
        return min(max(value, self.min), self.max)


class IntUniform(Bounded):
    """Integers, all equally likely."""

    min: StrictInt
    max: StrictInt
    distribution: Literal["int_uniform"] = "int_uniform"

    @override
    def grid(self) -> list[Any]:
        return list(_counted(range(self.min, self.max + 1)))

    @override
    def draw(self, random: Random) -> Any:
        return random.randint(self.min, self.max)

    @override
    def suggest(self, trial: Trial, name: str) -> Any:
        return trial.suggest_int(name, self.min, self.max)


class Uniform(Bounded):
    """Real numbers, uniformly distributed."""

    distribution: Literal["uniform"] = "uniform"

    @override
    def draw(self, random: Random) -> Any:
        return self.clamped(short(random.uniform(self.min, self.max)))

    @override
    def suggest(self, trial: Trial, name: str) -> Any:
        return self.clamped(short(trial.suggest_float(name, self.min, self.max)))


class QUniform(Bounded):
    """Multiples of `q`, all equally likely."""

    q: Positive = 1
    distribution: Literal["q_uniform"]

    @override
    def grid(self) -> list[Any]:
        first, last = math.ceil(self.min / self.q - 1e-9), math.floor(self.max / self.q + 1e-9)
        return [quantised(step * self.q, self.q) for step in _counted(range(first, last + 1))]

    @model_validator(mode="after")
    def _not_empty(self) -> QUniform:
        if not self.grid():
            raise ValueError(f"no multiple of q={self.q} between min={self.min} and max={self.max}")
        return self

    @override
    def draw(self, random: Random) -> Any:
        return random.choice(self.grid())

    @override
    def suggest(self, trial: Trial, name: str) -> Any:
        # Search over the index, because Optuna counts steps from the lower end and W&B from 0.
        values = self.grid()
        return values[trial.suggest_int(name, 0, len(values) - 1)]


class LogUniformValues(Bounded):
    """Real numbers with a uniform logarithm; `min` and `max` are the values themselves."""

    min: Positive
    distribution: Literal["log_uniform_values"]

    @override
    def draw(self, random: Random) -> Any:
        return self.clamped(short(math.exp(random.uniform(math.log(self.min), math.log(self.max)))))

    @override
    def suggest(self, trial: Trial, name: str) -> Any:
        return self.clamped(short(trial.suggest_float(name, self.min, self.max, log=True)))


class QLogUniformValues(LogUniformValues):
    """Multiples of `q` with a nearly uniform logarithm."""

    q: Positive = 1
    distribution: Literal["q_log_uniform_values"]  # type: ignore[assignment]

    @property
    @override
    def searchable(self) -> bool:
        return False

    @override
    def draw(self, random: Random) -> Any:
        return quantised(super().draw(random), self.q)
