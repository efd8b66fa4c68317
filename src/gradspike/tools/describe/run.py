"""NeuroBench's metrics of a run, on samples of its own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gradspike.config.schema import ExperimentConfig
from gradspike.cost.neurobench import measure_neurobench
from gradspike.json_text import readable, to_json
from gradspike.runs.files import write_record
from gradspike.runs.folder import NEUROBENCH, RunFolder
from gradspike.training.build import require_data_of
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.opened import open_split

SAMPLES = 64


def measure_run(config: ExperimentConfig, checkpoint: Path, samples: int | None) -> dict[str, Any]:
    """The metrics on `samples` samples of the test split, evenly by class: {"samples": n, name: value, ...}.

    samples: None for SAMPLES, or all of a smaller split.

    config: the run's, from `as_evaluated`. Raises UserError for samples other than those used for training.
    """
    content = load_checkpoint(checkpoint)
    opened = open_split(config, "test", samples, at_most=SAMPLES)
    require_data_of(content, opened.data)
    opened.module.load_state_dict(content["state_dict"])
    batches = [opened.transformed(batch)["input"] for batch in opened.stored_batches()]
    with opened.precision():
        found = measure_neurobench(opened.module.model, torch.cat(batches, batches[0].ndim - 4))
    return {"samples": len(opened.chosen), **found}


def record_if_missing(run: RunFolder, found: dict[str, Any]) -> Path | None:
    """Give a run of an older version the record that `compare` reads: metrics of its last weights. Returns its path."""
    file = run.path / NEUROBENCH
    if readable(file) is not None:
        return None
    samples, last = found["samples"], {name: value for name, value in found.items() if name != "samples"}
    write_record(file, to_json({"samples": samples, "last": last}) + "\n")
    return file
