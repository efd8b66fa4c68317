"""Claim files: statements of papers as data. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from gradspike.config.validate import explain
from gradspike.errors import ConfigError, unknown, unknown_path
from gradspike.registry import Strict
from gradspike.tools.claims.exact import EXACT
from gradspike.tools.claims.quantities import QUANTITIES

Text = Annotated[str, Field(min_length=1)]
Settings = dict[str, str | int | float | bool]
"""Swept parameters by key; runs that have all these values are meant."""


class Expected(Strict):
    """The range that the claim states, in the quantity's unit. A difference of which only the sign is claimed: 0."""

    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _some_range(self) -> Expected:
        if self.above is None and self.below is None:
            raise ValueError("needs above or below")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("above must be smaller than below")
        return self


class Part(Strict):
    """One number that a claim is about, measured on runs or exact."""

    what: Text
    exact: str | None = None
    """The name of a function of `exact.EXACT`; instead of all keys about runs."""
    summary: str | None = None
    """The stored summary, or the sweep's folder, that has the runs of `of`."""
    quantity: str | None = None
    of: Settings = Field(default_factory=dict)
    minus: Settings | None = None
    """Runs to subtract, seed by seed."""
    minus_summary: str | None = None
    """The summary with the runs of `minus`, if it is another one."""
    relative: bool = False
    """The difference to `minus` in percent of it."""
    spread_over: str | None = None
    """A swept key: the quantity is its largest minus its smallest value over this key, in each seed."""
    expect: Expected | None = None
    """None: the number is reported and does not decide."""
    paper: str = ""
    """The paper's figure for this number."""

    @model_validator(mode="after")
    def _one_source(self) -> Part:
        if self.exact is not None:
            about_runs = ("summary", "quantity", "of", "minus", "minus_summary", "spread_over")
            if given := [name for name in about_runs if getattr(self, name)]:
                raise ValueError(f"exact needs no runs: remove {', '.join(given)}")
            if self.exact not in EXACT:
                raise ValueError(unknown("exact function", self.exact, EXACT))
            return self
        if self.summary is None or self.quantity is None:
            raise ValueError("needs exact, or summary and quantity")
        if self.minus is None and (self.minus_summary is not None or self.relative):
            raise ValueError("minus_summary and relative need minus")
        if self.quantity not in QUANTITIES:
            raise ValueError(unknown("quantity", self.quantity, QUANTITIES))
        return self


class Claim(Strict):
    """One statement, its source, and what settles it."""

    id: Annotated[str, Field(pattern=r"^[A-Z]+\d+$")]
    statement: Text
    source: Text
    paper: Text
    """The paper's figure."""
    needs: Literal["all", "any"] = "all"
    """Whether the claim holds if all parts do, or if any does (two readings of one sentence)."""
    parts: tuple[Part, ...] = ()
    note: str = ""
    """What our measurement leaves out or reads differently."""
    not_run: str | None = None
    """Why nothing was measured; instead of `parts`."""

    @model_validator(mode="after")
    def _measured_or_not(self) -> Claim:
        if (self.not_run is None) == (not self.parts):
            raise ValueError("needs either parts or not_run")
        if self.parts and not any(part.expect for part in self.parts):
            raise ValueError("no part has expect, so nothing decides")
        return self


class ClaimFile(Strict):
    """A file of claims: those of one paper."""

    title: Text
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Claims:
    """All claim files of a folder, in the order of their names."""

    files: tuple[tuple[Path, ClaimFile], ...]

    @property
    def summaries(self) -> set[str]:
        """The names of all summaries that some part needs."""
        parts = [part for _, file in self.files for claim in file.claims for part in claim.parts]
        return {name for part in parts for name in (part.summary, part.minus_summary) if name}


def read_claims(folder: Path) -> Claims:
    """All claims below `folder`. Raises ConfigError for a mistake in a file, with its place."""
    if not folder.is_dir():
        raise ConfigError(unknown_path("folder of claims", folder))
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ConfigError(f"{folder}: contains no claims (*.yaml).")
    files = tuple((path, _read(path)) for path in paths)
    _unique([(claim.id, path) for path, file in files for claim in file.claims])
    return Claims(files)


def _read(path: Path) -> ClaimFile:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping with title and claims.")
    try:
        return ClaimFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path} is not a valid file of claims:\n" + "\n".join(_problems(error))) from error


def _problems(error: ValidationError) -> Iterator[str]:
    for detail in error.errors():
        place = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            schemas: dict[int, type[Strict]] = {1: ClaimFile, 3: Claim, 5: Part}
            schema = schemas.get(len(detail["loc"]), Expected)
            yield f"  {place}: {unknown('key', str(detail['loc'][-1]), schema.model_fields)}"
        else:
            yield f"  {place}: {explain(detail)}"


def _unique(ids: Sequence[tuple[str, Path]]) -> None:
    first: dict[str, Path] = {}
    for name, path in ids:
        if name in first:
            raise ConfigError(f"{path}: claim {name} is already in {first[name]}.")
        first[name] = path
