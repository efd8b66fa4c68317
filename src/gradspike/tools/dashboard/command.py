"""`gradspike dashboard`: its arguments, and the order of its work. Imports nothing heavy before they are checked."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from gradspike.cli.arguments import Command
from gradspike.config.wandb_options import check_name, entity_variable, project_variable
from gradspike.data.registry import DATASETS
from gradspike.errors import UserError
from gradspike.json_text import to_json
from gradspike.loggers.wandb_login import logged_in
from gradspike.registry import Strict

DRY_RUN = "--dry-run"

USAGE = """\
Save a W&B workspace that compares the methods of a project: accuracy, curves, layers and time steps, energy.

  gradspike dashboard project=gradspike
  gradspike dashboard project=gradspike entity=my_team dataset=cifar10dvs
  gradspike dashboard project=gradspike --dry-run        print the specification, contact no server

Arguments:
  project    the W&B project of the runs (logger.project)                (WANDB_PROJECT)
  entity     the user or team that owns the project                      (WANDB_ENTITY, else your default)
  dataset    only runs on this data set                                  (all)
  name       the workspace's name                                        (Methods)
  --dry-run  only print the workspace as JSON; needs neither login nor network

Runs are grouped by method (W&B's group). Each call saves a new workspace and prints its address. It needs the package
wandb-workspaces and a login; see docs/sweeps.md.
"""


class DashboardArguments(Strict):
    """Arguments of `gradspike dashboard`."""

    project: Annotated[str, Field(min_length=1)]
    entity: Annotated[str, Field(min_length=1)] | None = None
    dataset: str | None = None
    name: Annotated[str, Field(min_length=1)] = "Methods"

    @model_validator(mode="before")
    @classmethod
    def _from_environment(cls, values: dict[str, Any]) -> dict[str, Any]:
        variables = {"project": project_variable, "entity": entity_variable}
        found = {key: value() for key, value in variables.items() if key not in values}
        return {key: value for key, value in found.items() if value is not None} | values

    @field_validator("project", "entity")
    @classmethod
    def _name_of_wandb(cls, text: str | None) -> str | None:
        return None if text is None else check_name(text, "entity", "project")


COMMAND = Command("dashboard", USAGE, keys=DashboardArguments, switches=(DRY_RUN,))


def dashboard(words: list[str]) -> int:
    """Save the workspace, or print it. Returns the exit code."""
    typed = COMMAND.parse(words)
    options: DashboardArguments = typed.options
    dry_run = DRY_RUN in typed.flags
    if options.dataset is not None and ":" not in options.dataset:
        DATASETS.config_class(options.dataset)  # refuses an unknown name
    if not dry_run and not logged_in():
        raise UserError(f"Not logged in to W&B. Run wandb login or set WANDB_API_KEY ({DRY_RUN} needs no login).")
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("A dashboard needs the package wandb-workspaces: pip install 'gradspike[dashboard]'")
    if dry_run:
        print(to_json(specification(options), indent=2))
        return 0

    from gradspike.tools.dashboard.server import Server
    from gradspike.tools.dashboard.workspace import workspace

    server = Server(options.entity)
    server.require_project(options.project)
    assert server.entity is not None
    made = workspace(server.entity, options.project, options.name, options.dataset, server.keep_chart())
    print(f"saved: {server.save(made)}")
    return 0


def specification(options: DashboardArguments) -> dict[str, object]:
    """The data for W&B: the view, and the chart of its heat maps."""
    from gradspike.tools.dashboard import heat_map
    from gradspike.tools.dashboard.workspace import view, workspace

    entity = options.entity or "<your default entity>"
    chart = f"{entity}/{heat_map.name()}"
    made = workspace(entity, options.project, options.name, options.dataset, chart)
    return {
        "entity": options.entity,
        "project": options.project,
        "name": options.name,
        "view": view(made),
        "chart": {"id": chart, "specification": heat_map.SPECIFICATION},
    }
