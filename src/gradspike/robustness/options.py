"""The keys of robustness evaluations, which of them go together, and which runs they suit. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.methods.options import MIN_WIDTH, SurrogateName
from gradspike.registry import Strict

Attack = Literal["fgsm", "pgd"]
Corruption = Literal["noise", "event_drop"]

EPSILON = (8 / 255,)
LEVELS: dict[Corruption, tuple[float, ...]] = {
    "noise": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    "event_drop": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}
STEPS, RESTARTS = 10, 1
REACH = 2.5
"""How far the default steps of PGD can move a pixel, in multiples of epsilon (Madry et al., ICLR 2018)."""


def fraction(text: Any) -> float:
    """A number from `0.03`, or from a ratio such as `8/255`. Raises ValueError."""
    above, slash, below = str(text).partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"'{text}' is not a number; write 0.03 or 8/255") from error
    if not math.isfinite(value):
        raise ValueError(f"'{text}' must be finite")
    return value


def _fractions(text: Any) -> tuple[float, ...]:
    """The numbers of a list, in ascending order, each once. The commas are the only separators."""
    words = str(text).strip("[]").split(",")
    return tuple(sorted({fraction(word.strip()) for word in words}))


def _within_pixels(values: tuple[float, ...]) -> tuple[float, ...]:
    for value in values:
        if not 0 <= value <= 1:
            hint = f". Did you mean {value:g}/255?" if 1 < value <= 255 else ""
            raise ValueError(f"{value:g} is outside 0 to 1, the range of a pixel before normalisation{hint}")
    return values


def _share(values: tuple[float, ...]) -> tuple[float, ...]:
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"{value:g} is outside 0 to 1")
    return values


Pixels = Annotated[tuple[float, ...], BeforeValidator(_fractions), AfterValidator(_within_pixels)]


class RobustnessKeys(Strict):
    """The keys of `gradspike evaluate` that attack or corrupt the input. None stands for a default."""

    attack: Attack | None = None
    epsilon: Pixels | None = None
    """Largest changes of a pixel, on the scale 0 to 1 before normalisation."""
    steps: PositiveInt | None = None
    step_size: Annotated[float, BeforeValidator(fraction), Field(gt=0, le=1)] | None = None
    restarts: PositiveInt | None = None
    surrogate: SurrogateName | None = None
    width: Annotated[float, Field(ge=MIN_WIDTH)] | None = None
    corrupt: Corruption | None = None
    levels: Annotated[tuple[float, ...], BeforeValidator(_fractions), AfterValidator(_share)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    samples: PositiveInt | None = None

    @property
    def kind(self) -> str | None:
        """What is done to the input; None for an ordinary evaluation."""
        return self.attack or self.corrupt

    @property
    def strengths(self) -> tuple[float, ...]:
        """The epsilons or levels, ascending, without 0, which is always measured."""
        given = (self.epsilon or EPSILON) if self.attack is not None else self.levels
        if given is None:
            assert self.corrupt is not None
            given = LEVELS[self.corrupt]
        return tuple(value for value in given if value > 0)

    def check(self) -> None:
        """Raise ConfigError for keys that have no effect together."""
        if self.attack is not None and self.corrupt is not None:
            raise ConfigError("attack and corrupt: choose one of them.")
        rules: Sequence[tuple[str, bool, str]] = (
            *((key, self.attack is not None, "attack=fgsm or attack=pgd") for key in ("epsilon", "surrogate", "width")),
            *((key, self.attack == "pgd", "attack=pgd") for key in ("steps", "step_size", "restarts")),
            ("levels", self.corrupt is not None, "corrupt=noise or corrupt=event_drop"),
            ("seed", self.attack == "pgd" or self.corrupt is not None, "attack=pgd or corrupt=..., which draw numbers"),
            ("samples", self.kind is not None, "attack=... or corrupt=..."),
        )
        for key, used, needed in rules:
            if getattr(self, key) is not None and not used:
                raise ConfigError(f"{key}: has an effect only with {needed}.")
        if self.kind is not None and not self.strengths:
            key = "epsilon" if self.attack is not None else "levels"
            raise ConfigError(f"{key}=0: changes nothing; 0 is always measured. Give a value above 0.")

    def check_run(self, config: ExperimentConfig, engine: str | None) -> None:
        """Raise ConfigError if the input of a run cannot be changed in this way."""
        if self.kind is None:
            return
        data = config.dataset
        if self.corrupt == "event_drop":
            if data.kind != "frames":
                raise ConfigError(
                    f"corrupt=event_drop: the run's data set '{data.name}' has still images, which consist of no "
                    "events. Use corrupt=noise."
                )
            if getattr(data, "resize", None) == "tet":
                raise ConfigError(
                    "corrupt=event_drop: frames of dataset.resize=tet are interpolated, so they are no counts of "
                    "events any more."
                )
            return
        if data.kind == "frames":
            raise ConfigError(
                f"{'attack' if self.attack else 'corrupt'}={self.kind}: the run's data set '{data.name}' has event "
                "frames. Their values are counts of events, to which no part of an event can be added. Use "
                "corrupt=event_drop."
            )
        if self.attack is not None:
            self._check_attack(config, engine)

    def _check_attack(self, config: ExperimentConfig, engine: str | None) -> None:
        if config.model.encoder != "direct":
            raise ConfigError(
                f"attack={self.attack}: the run's encoder (model.encoder={config.model.encoder}) turns pixels into "
                "spikes, through which no gradient flows. Use corrupt=noise."
            )
        if engine not in (None, "eager"):
            raise ConfigError(f"engine={engine}: attacks are computed with engine=eager. Leave out engine.")
        for key in ("surrogate", "width"):
            if getattr(self, key) is not None and config.model.activation == "relu":
                raise ConfigError(f"{key}: the run is an ANN twin (model.activation=relu), which has no surrogate.")


def settings_of(keys: RobustnessKeys) -> dict[str, Any]:
    """All settings that shape a result, defaults included, for the record."""
    if keys.attack is None:
        return {
            "corrupt": keys.corrupt,
            "levels": list(keys.strengths),
            "seed": keys.seed or 0,
            "samples": keys.samples,
        }
    settings: dict[str, Any] = {"attack": keys.attack, "epsilon": list(keys.strengths)}
    if keys.attack == "pgd":
        settings |= {"steps": keys.steps or STEPS, "step_size": keys.step_size}
        settings |= {"restarts": keys.restarts or RESTARTS, "seed": keys.seed or 0}
    return {**settings, "surrogate": keys.surrogate, "width": keys.width, "samples": keys.samples}
