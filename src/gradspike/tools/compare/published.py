"""Published numbers, and the groups with exactly their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradspike.config.recipes import deviations, published_for
from gradspike.config.schema import ExperimentConfig, PublishedConfig
from gradspike.config.trust import outside, trusted
from gradspike.config.validate import validate
from gradspike.errors import UserError
from gradspike.nested import flat
from gradspike.tools.compare.groups import Group, text_of
from gradspike.tools.compare.run import Run


def _validated(run: Run) -> ExperimentConfig | None:
    """The run's configuration, validated; None for an older format, or if a module is missing or untrusted."""
    if not all(map(trusted, outside(run.config).values())):
        return None
    try:
        return validate({key: value for key, value in run.config.items() if not key.startswith("_")}, recorded=True)
    except (UserError, ImportError):
        return None


def published_of(run: Run) -> PublishedConfig | None:
    """The result published for exactly the run's configuration, or None."""
    config = _validated(run)
    return None if config is None else published_for(config)


def published_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """All published numbers of the runs' recipes, with the indices of comparable groups."""
    found: dict[str, dict[str, Any]] = {}
    for place, group in enumerate(groups):
        config = _validated(group.runs[0])
        if config is None or config.recipe is None:
            continue
        left = deviations(config)
        values = dict(flat(config.plain()))
        for one in config.recipe.published:
            when = ", ".join(f"{key}={text_of(value)}" for key, value in one.when.items())
            entry = found.setdefault(
                f"{config.recipe.name} {when} {one.accuracy}",
                {
                    "recipe": config.recipe.name,
                    "source": config.recipe.source,
                    "when": when,
                    "accuracy": one.accuracy,
                    "spread": one.spread,
                    "groups": [],
                    "differs": "",
                },
            )
            unlike = [key for key, value in one.when.items() if values.get(key) != value]
            if not left and not unlike:
                entry["groups"].append(place)
            elif not entry["groups"]:
                entry["differs"] = "; ".join([*left, *(f"{key}={text_of(values.get(key))}" for key in unlike)])
    return list(found.values())
