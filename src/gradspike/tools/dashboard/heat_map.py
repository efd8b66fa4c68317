"""A heat map of layers x time steps for each method, as a custom chart of W&B.

W&B draws a custom chart from rows of a logged table and a Vega-Lite specification (data named `wandb`) in which
`${field:name}` stands for a column and `${string:name}` for a text; a panel says which. Rows are those of all visible
runs, so the mean over seeds is taken by the specification.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gradspike.loggers.closing import LAYER_COLUMNS

VALUE = "value"
FIELDS = {name: name for name in LAYER_COLUMNS if name not in ("seed", "firing_rate", "gradient_available")}
"""The columns that every heat map reads; `value` is the one it shows."""

SPECIFICATION: dict[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "title": "${string:title}",
    "data": {"name": "wandb"},
    "facet": {"field": "${field:method}", "type": "nominal", "title": None},
    "columns": 3,
    "spec": {
        "width": {"step": 22},
        "height": {"step": 16},
        "mark": {"type": "rect", "tooltip": True},
        "encoding": {
            "x": {"field": "${field:step}", "type": "ordinal", "title": "time step", "axis": {"labelAngle": 0}},
            "y": {
                "field": "${field:layer}",
                "type": "nominal",
                "title": None,
                "sort": {"field": "${field:depth}", "op": "min"},
            },
            "color": {
                "field": f"${{field:{VALUE}}}",
                "aggregate": "mean",
                "type": "quantitative",
                "title": "mean over seeds",
                "scale": {"scheme": "viridis", "zero": True},
                "legend": {"format": ".0%"},
            },
        },
    },
}


def name() -> str:
    """The chart's name; another specification has another one, so that what is saved already stays as it is."""
    digest = hashlib.sha256(json.dumps(SPECIFICATION, sort_keys=True).encode()).hexdigest()
    return f"gradspike-layers-{digest[:8]}"
