"""Options of `gradspike landscape`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt, field_validator

from gradspike.engine.registry import EngineName
from gradspike.registry import Strict

NullOr = BeforeValidator(lambda value: None if value in ("null", "none", "") else value)
PositiveOrNull = Annotated[PositiveInt | None, NullOr]


class LandscapeConfig(Strict):
    """Arguments of `gradspike landscape`."""

    run: str
    checkpoint: Literal["last", "best"] = "last"
    split: Literal["train", "val", "test"] = "val"
    points: Annotated[int, Field(ge=3, le=1001)] = 21
    extent: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    samples: PositiveOrNull = None
    batch_size: PositiveOrNull = None
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    norm_statistics: Literal["stored", "batch"] = "stored"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    data_dir: Annotated[str | None, NullOr] = None
    source: Annotated[str | None, NullOr] = Field(default=None, alias="dataset.source")
    engine: EngineName | None = None
    out: Annotated[str | None, NullOr] = None
    restart: bool = False

    @field_validator("points")
    @classmethod
    def _odd(cls, points: int) -> int:
        if points % 2 == 0:
            raise ValueError(
                f"{points} is even; choose an odd number such as {points + 1}, so that the grid contains the trained "
                "weights"
            )
        return points
