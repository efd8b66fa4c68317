"""The keys of `gradspike evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from gradspike.engine.registry import EngineName
from gradspike.robustness.options import RobustnessKeys


class EvaluateConfig(RobustnessKeys):
    """Arguments of `gradspike evaluate`."""

    run: str
    split: Literal["train", "val", "test"] = "test"
    checkpoint: Literal["last", "best", "both"] = "both"
    batch_size: PositiveInt | None = None
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    data_dir: str | None = None
    source: str | None = Field(default=None, alias="dataset.source", min_length=1)
    engine: EngineName | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
