"""A heat map of layers x time steps for each method, as a custom chart of W&B.

W&B draws a custom chart from the rows of a logged table and a Vega-Lite specification (data named `wandb`), in which
`${field:name}` stands for a column and `${string:name}` for a text that the panel sets. The rows come from all visible
runs, so the specification averages over seeds.
"""

from __future__ import annotations

import hashlib
from typing import Any

from gradspike.json_text import to_json
from gradspike.loggers.closing import LAYER_COLUMNS

VALUE = "value"
FIELDS = {name: name for name in LAYER_COLUMNS if name not in ("seed", "firing_rate", "gradient_available")}
"""The columns that every heat map reads; it shows `value`."""

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
    """The name of the chart. It depends on the specification, so saved charts never change."""
    digest = hashlib.sha256(to_json(SPECIFICATION, sort_keys=True).encode()).hexdigest()
    return f"gradspike-layers-{digest[:8]}"
