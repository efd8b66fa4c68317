"""Options of every method. Light: imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from gradspike.registry import Strict
from gradspike.surrogate import SURROGATES
from gradspike.touches import Start, Touches

MIN_WIDTH = 1e-3
LABEL = r"^[\w.-]+$"

if TYPE_CHECKING:
    SurrogateName = str
else:
    SurrogateName = Literal[tuple(SURROGATES)]


class MethodConfig(Strict):
    """Options of every method. `v_threshold` is the base threshold V_th, in units of the membrane potential.

    `label` is the name of a variant in runs and tables.
    """

    touches: ClassVar[Touches] = Touches.RESULT

    name: str
    label: Start[Annotated[str, Field(pattern=LABEL, max_length=100)] | None] = None
    v_threshold: float = Field(default=0.5, gt=0)
    surrogate: SurrogateName = "rectangular"
