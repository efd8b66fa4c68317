"""Sections and panels of the workspace, with the names that runs log. Imports wandb-workspaces.

Runs are grouped by W&B's group: the name of the method, or `logger.group`. Curves and bars show the mean of a group and
its standard deviation.
"""

from __future__ import annotations

from typing import Any

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from gradspike.loggers.closing import LAYER_TABLE
from gradspike.tools.dashboard import heat_map

MOST_GROUPS = 50
GROUP = "Group"

ABOUT = """\
### How to read this

Runs are grouped by method. Lines and bars are the mean of a group; bands and whiskers are one standard deviation.

- This workspace does not separate runs that must not be averaged: filter them to one data set, network, budget and \
version of the code. `gradspike compare` refuses such mixtures, and adds intervals, paired tests and cost.
- An unfinished run has curves, but no bar and no point.
- *Test accuracy* is measured after the last epoch. Never select an epoch, a setting or a run by it.
- *Gradient available*: share of neurons with |u - theta| < kappa / 2, which pass a gradient.
- *Energy* of an inference is estimated from counted operations (4.6 pJ per multiply-accumulate, 0.9 pJ per \
accumulate; 45 nm, Horowitz 2014), not measured.
"""


def workspace(entity: str, project: str, name: str, dataset: str | None, chart: str) -> ws.Workspace:
    """The workspace, not saved. `chart` is the id of the heat maps' chart; `dataset` filters the runs."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections(chart),
        settings=ws.WorkspaceSettings(max_runs=MOST_GROUPS),
        runset_settings=ws.RunsetSettings(
            # `value` is part of the path in W&B's own filters. `in`, because `=` may match nothing
            # (wandb-workspaces, issue 34).
            filters=[expr.Config("dataset.value.name").isin([dataset])] if dataset else [],
            groupby=[expr.Metric(GROUP)],
            pinned_columns=[
                "summary:test/last/accuracy",
                "summary:val/last/accuracy",
                "summary:test/last/energy_nj",
                "summary:dataset",
                "summary:model",
                "summary:seed",
            ],
        ),
    )


def view(made: ws.Workspace) -> dict[str, Any]:
    """The workspace as sent to W&B."""
    sent: dict[str, Any] = made._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return sent


def sections(chart: str) -> list[ws.Section]:
    """The sections, from the results to their explanation."""
    return [
        _section(
            "Accuracy",
            [
                _bars("Test accuracy after the last epoch", "test/last/accuracy"),
                _bars("Validation accuracy after the last epoch", "val/last/accuracy"),
                wr.MarkdownPanel(markdown=ABOUT),
            ],
        ),
        _section(
            "Curves",
            [
                _curve("Validation accuracy", "val/accuracy"),
                _curve("Validation loss", "val/loss"),
                _curve("Training loss", "train/loss"),
            ],
        ),
        _section(
            "Inside the network, mean over layers",
            [
                _path("Gradient-available share", "probe/mean/gradient_available"),
                _path("Firing rate", "probe/mean/firing_rate"),
                _path("Threshold theta", "probe/mean/theta"),
                _path("Surrogate width kappa", "probe/mean/kappa"),
            ],
            columns=2,
        ),
        _section(
            "Layers and time steps, at the last validation",
            [
                _heat_map("Firing rate", "firing_rate", chart),
                _heat_map("Gradient-available share", "gradient_available", chart),
            ],
            columns=1,
        ),
        _section(
            "Cost",
            [
                _scatter("Accuracy against energy", "test/last/energy_nj"),
                _scatter("Accuracy against firing rate", "test/last/firing_rate"),
                _bars("Estimated energy of an inference (nJ)", "test/last/energy_nj"),
            ],
        ),
    ]


def _section(name: str, panels: list[Any], columns: int = 3) -> ws.Section:
    rows = -(-len(panels) // columns)
    layout = ws.SectionLayoutSettings(columns=columns, rows=rows)
    return ws.Section(name=name, panels=panels, is_open=True, layout_settings=layout)


def _bars(title: str, metric: str) -> wr.BarPlot:
    return wr.BarPlot(
        title=title,
        metrics=[metric],
        groupby=GROUP,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_bars_to_show=MOST_GROUPS,
    )


def _curve(title: str, metric: str) -> wr.LinePlot:
    return _line(title, metric, "epoch", "epoch")


def _path(title: str, metric: str) -> wr.LinePlot:
    """A curve over optimiser steps, the x axis of the probe's records."""
    return _line(title, metric, "Step", "optimiser step")


def _line(title: str, metric: str, x: str, title_x: str) -> wr.LinePlot:
    return wr.LinePlot(
        title=title,
        x=x,
        y=[metric],
        title_x=title_x,
        groupby=GROUP,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=MOST_GROUPS,
    )


def _scatter(title: str, x: str) -> wr.ScatterPlot:
    return wr.ScatterPlot(title=title, x=wr.SummaryMetric(x), y=wr.SummaryMetric("test/last/accuracy"))


def _heat_map(title: str, column: str, chart: str) -> wr.CustomChart:
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": LAYER_TABLE}},
        chart_name=chart,
        chart_fields={**heat_map.FIELDS, heat_map.VALUE: column},
        chart_strings={"title": title},
    )
