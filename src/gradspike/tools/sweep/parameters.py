"""Parameters of a W&B sweep file, and the two kinds with listed values: `value` and `values`.

Names and meanings are W&B's (docs.wandb.ai, "Sweep configuration options").
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictFloat, StrictInt, model_validator
from typing_extensions import override

from gradspike.registry import Strict
from gradspike.shown import counted, listed

if TYPE_CHECKING:
    from optuna.trial import Trial

Number = StrictInt | StrictFloat
Positive = Annotated[Number, Field(gt=0)]


class Parameter(Strict, ABC):
    """One parameter of a sweep."""

    varies: ClassVar[bool] = True
    """Whether its value differs between trials."""

    @property
    def searchable(self) -> bool:
        """Whether `method: bayes` can propose values for it."""
        return True

    def grid(self) -> list[Any] | None:
        """All values, or None if there are infinitely many."""
        return None

    @abstractmethod
    def draw(self, random: Random) -> Any:
        """One random value."""

    @abstractmethod
    def suggest(self, trial: Trial, name: str) -> Any:
        """A value proposed by an Optuna search. Called only if `searchable`."""

    def examples(self) -> list[Any]:
        """Values for checking the configuration: all values, or the extremes."""
        return self.grid() or [self.draw(Random(seed)) for seed in range(2)]


class Constant(Parameter):
    """`value: x`."""

    varies = False
    value: Any
    distribution: Literal["constant"] = "constant"

    @model_validator(mode="after")
    def _written(self) -> Constant:
        _check_written([self.value])
        return self

    @override
    def grid(self) -> list[Any]:
        return [self.value]

    @override
    def draw(self, random: Random) -> Any:
        return self.value

    @override
    def suggest(self, trial: Trial, name: str) -> Any:
        return self.value


class Categorical(Parameter):
    """`values: [...]`, optionally with `probabilities` for random search."""

    values: Annotated[list[Any], Field(min_length=1)]
    probabilities: list[Annotated[Number, Field(ge=0)]] | None = None
    distribution: Literal["categorical", "categorical_w_probabilities"] = "categorical"

    @model_validator(mode="after")
    def _agree(self) -> Categorical:
        _check_written(self.values)
        texts = self._texts()
        twice = sorted({text for text in texts if texts.count(text) > 1})
        if twice:
            often = "twice" if all(texts.count(text) == 2 for text in twice) else "more than once"
            raise ValueError(f"{listed(twice)} {'appears' if len(twice) == 1 else 'appear'} {often} in values")
        if self.probabilities is not None and len(self.probabilities) != len(self.values):
            raise ValueError(
                f"has {counted(len(self.values), 'value')} but "
                f"{counted(len(self.probabilities), 'probability', 'probabilities')}"
            )
        if self.probabilities is not None and not sum(self.probabilities) > 0:
            raise ValueError("probabilities must not all be 0")
        return self

    @property
    @override
    def searchable(self) -> bool:
        return self.probabilities is None

    @override
    def grid(self) -> list[Any] | None:
        return self.values if self.probabilities is None else None

    @override
    def draw(self, random: Random) -> Any:
        return random.choices(self.values, self.probabilities)[0]

    @override
    def suggest(self, trial: Trial, name: str) -> Any:
        texts = self._texts()
        return self.values[texts.index(trial.suggest_categorical(name, texts))]

    @override
    def examples(self) -> list[Any]:
        return self.values

    def _texts(self) -> list[str]:
        return [str(value) for value in self.values]


def short(value: float) -> float:
    """`value` rounded to six digits: enough for any setting, and readable on a command line."""
    return float(f"{value:.6g}")


def quantised(value: float, q: float) -> Any:
    """The multiple of `q` nearest to `value`; an integer if `q` is one."""
    steps = round(value / q)
    return steps * q if isinstance(q, int) else short(steps * q)


def _check_written(values: list[Any]) -> None:
    """Raise ValueError for a value that W&B's agent cannot write on a command line (it writes null as None)."""
    for value in values:
        if value is None:
            raise ValueError("W&B's agent writes null as None; use the quoted word 'null' instead")
        if isinstance(value, dict):
            raise ValueError("W&B's agent cannot write a mapping; use one dotted name for each entry")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
