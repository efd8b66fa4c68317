"""Requests to W&B: the default entity, the project, saving the chart and the workspace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import wandb

from gradspike.errors import UserError, did_you_mean
from gradspike.tools.dashboard import heat_map

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


@contextmanager
def _reporting(doing: str) -> Iterator[None]:
    """Turn all errors of W&B's client, which have no common class, into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"W&B: {doing} failed: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class Server:
    """The W&B server of the login. Raises UserError if it refuses a request."""

    def __init__(self, entity: str | None) -> None:
        with _reporting("logging in"):
            self._api: Any = wandb.Api()
            self.entity: str | None = entity or self._api.default_entity
        if not self.entity:
            raise UserError("You have no default W&B entity. Name your team or user with entity=...")

    def require_project(self, project: str) -> None:
        """Raise UserError with the nearest name if the entity does not have this project."""
        with _reporting(f"listing the projects of {self.entity}"):
            there = [one.name for one in self._api.projects(self.entity)]
        if project not in there:
            raise UserError(
                f"unknown project '{project}' of {self.entity}.{did_you_mean(project, there)} Runs create projects "
                f"(logger=wandb logger.project={project}); offline runs need wandb sync."
            )

    def keep_chart(self) -> str:
        """Save the chart of the heat maps. Returns its id. W&B may refuse an existing one, which is harmless."""
        name = heat_map.name()
        try:
            self._api.create_custom_chart(
                entity=self.entity,
                name=name,
                display_name="Layers and time steps (gradspike)",
                spec_type="vega2",
                access="private",
                spec=heat_map.SPECIFICATION,
            )
        except Exception as error:
            print(
                f"Note: W&B did not save the chart {name} ({_line(error)}). If it already exists, nothing is missing."
            )
        return f"{self.entity}/{name}"

    def save(self, workspace: Workspace) -> str:
        """Save a workspace. Returns its address."""
        with _reporting("saving the workspace"):
            workspace.save()
            return str(workspace.url)
