"""Normal and log-normal parameters, only for random search."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from typing_extensions import override

from gradspike.tools.sweep.parameters import Number, Parameter, Positive, quantised, short

if TYPE_CHECKING:
    from optuna.trial import Trial


class Normal(Parameter):
    """Normal with mean `mu` and standard deviation `sigma`."""

    mu: Number = 0.0
    sigma: Annotated[Number, Field(gt=0)] = 1.0
    distribution: Literal["normal"]

    @property
    @override
    def searchable(self) -> bool:
        return False

    @override
    def draw(self, random: Random) -> Any:
        return short(random.gauss(self.mu, self.sigma))

    @override
    def suggest(self, trial: Trial, name: str) -> Any:
        raise TypeError("Optuna has no normal distribution")


class QNormal(Normal):
    """Normal, rounded to multiples of `q`."""

    q: Positive = 1
    distribution: Literal["q_normal"]  # type: ignore[assignment]

    @override
    def draw(self, random: Random) -> Any:
        return quantised(super().draw(random), self.q)


class LogNormal(Normal):
    """exp of a normal with mean `mu` and standard deviation `sigma`."""

    distribution: Literal["log_normal"]  # type: ignore[assignment]

    @override
    def draw(self, random: Random) -> Any:
        return short(math.exp(random.gauss(self.mu, self.sigma)))


class QLogNormal(LogNormal):
    """Log-normal, rounded to multiples of `q`."""

    q: Positive = 1
    distribution: Literal["q_log_normal"]  # type: ignore[assignment]

    @override
    def draw(self, random: Random) -> Any:
        return quantised(super().draw(random), self.q)
