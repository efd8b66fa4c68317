"""What is asked of W&B: whose workspace it is, that the project is there, to keep the chart and the workspace."""

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
def _told(doing: str) -> Iterator[None]:
    """Whatever W&B's client raises (it has no common class for it), as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"W&B: {doing} failed: {reason}") from error


class Server:
    """The W&B server that the login is for. Raises UserError for everything it refuses."""

    def __init__(self, entity: str | None) -> None:
        with _told("logging in"):
            self._api: Any = wandb.Api()
            self.entity: str | None = entity or self._api.default_entity
        if not self.entity:
            raise UserError("W&B knows no default entity for you; name your team or user with entity=...")

    def require_project(self, project: str) -> None:
        """Raises UserError, with the nearest name, where the entity has no such project."""
        with _told(f"listing the projects of {self.entity}"):
            there = [one.name for one in self._api.projects(self.entity)]
        if project not in there:
            raise UserError(
                f"project={project}: {self.entity} has no such project.{did_you_mean(project, there)} Runs make it: "
                f"logger=wandb logger.project={project}, or wandb sync for offline ones."
            )

    def keep_chart(self) -> str:
        """Keep the heat maps' chart; gives its id. One that is there already may be refused, which does no harm."""
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
            print(f"Note: W&B did not take the chart {name} ({error}); if it is there from before, nothing is missing.")
        return f"{self.entity}/{name}"

    def save(self, workspace: Workspace) -> str:
        """Save a workspace; gives its address."""
        with _told("saving the workspace"):
            workspace.save()
            return str(workspace.url)
