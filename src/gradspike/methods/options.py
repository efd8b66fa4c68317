"""Options of every method. Light: imports no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from gradspike.errors import did_you_mean
from gradspike.registry import Allowed, Strict
from gradspike.surrogate import SURROGATES
from gradspike.touches import Start, Touches

MIN_WIDTH = 1e-3
LABEL = r"^[\w.-]+$"


def _known_surrogate(name: str) -> str:
    """A shape's name, or an import path, which is imported when the network is built."""
    if name in SURROGATES or all(name.partition(":")):
        return name
    raise ValueError(
        f"must be one of {', '.join(SURROGATES)}, or an import path such as my_file:SHAPE."
        f"{did_you_mean(name, SURROGATES)}"
    )


SurrogateName = Annotated[str, AfterValidator(_known_surrogate), Allowed(f"{' | '.join(SURROGATES)} | my_file:SHAPE")]


class MethodConfig(Strict):
    """Options of every method. `v_threshold` is the base threshold V_th, in units of the membrane potential.

    `label` is the name of a variant in runs and tables.
    """

    touches: ClassVar[Touches] = Touches.RESULT

    name: str
    label: Start[Annotated[str, Field(pattern=LABEL, max_length=100)] | None] = None
    v_threshold: float = Field(default=0.5, gt=0)
    surrogate: SurrogateName = "rectangular"
