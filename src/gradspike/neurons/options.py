"""Options of every neuron. Light: imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from gradspike.registry import Strict
from gradspike.touches import Touches


class NeuronConfig(Strict):
    """Options of every neuron.

    `detach_reset` cuts the gradient through the reset. `gradient: sltt` drops the terms that cross time steps (Meng et
    al., ICCV 2023); `bptt` keeps them. With `sltt_steps` (SLTT-K) only so many random steps of a batch have a gradient.
    `fires` says whether a potential that equals the threshold fires.
    """

    touches: ClassVar[Touches] = Touches.RESULT

    name: str
    detach_reset: bool = False
    gradient: Literal["bptt", "sltt"] = "bptt"
    sltt_steps: PositiveInt | None = None
    fires: Literal["at_threshold", "above_threshold"] = "at_threshold"

    @model_validator(mode="after")
    def _steps_need_sltt(self) -> Self:
        if self.sltt_steps is not None and self.gradient != "sltt":
            raise ValueError(f"sltt_steps={self.sltt_steps}: needs gradient=sltt, which keeps the steps apart")
        return self

    def check_time_steps(self, time_steps: int) -> None:
        """Check the options that count steps against those of a sample. Raises ValueError."""
        if (self.sltt_steps or 0) > time_steps:
            raise ValueError(f"sltt_steps={self.sltt_steps}: must be at most time_steps={time_steps}")


class LeakyConfig(NeuronConfig):
    """Options of neurons with a leak. `decay` is tau, the fraction of the potential that remains after one step.

    `reset: hard` sets the potential to `v_reset`, where it also starts and decays to; `soft` subtracts the threshold.
    `decay_input` multiplies the current by 1 - tau.
    """

    decay: float = Field(default=0.2, gt=0, lt=1)
    reset: Literal["hard", "soft"] = "hard"
    v_reset: float = 0.0
    decay_input: bool = False

    @model_validator(mode="after")
    def _v_reset_is_used(self) -> Self:
        if self.reset == "soft" and self.v_reset != 0:
            raise ValueError(f"v_reset={self.v_reset:g}: reset=soft subtracts the threshold and has no such value")
        return self
