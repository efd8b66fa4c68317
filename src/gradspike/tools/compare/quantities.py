"""The numbers of a run that a comparison shows. Only these are kept: a run records thousands of others. Imports nothing
heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from gradspike.runs.probe_records import VALIDATION

CURVES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/firing_rate")
HEATS = ("firing_rate", "gradient_available")
PATHS = ("theta", "kappa")

_EPOCH = frozenset(("step", "epoch", *CURVES))
_TIMING = frozenset(("epoch", "train_seconds", "peak_memory_mb", "peak_rss_mb"))
_PATH_ENDINGS = tuple(f"/{quantity}" for quantity in PATHS)
_HEAT_PARTS = tuple(f"/{quantity}" for quantity in HEATS)

Record = dict[str, Any]


def of_epoch(record: Mapping[str, Any]) -> Record:
    """What is shown of a record that ends an epoch."""
    return _kept(record, _EPOCH.__contains__)


def of_probe(record: Mapping[str, Any]) -> Record:
    """What is shown of the probe's record of a training step."""
    return _kept(record, lambda key: key == "step" or (key.startswith("probe/") and key.endswith(_PATH_ENDINGS)))


def of_validation(record: Mapping[str, Any]) -> Record:
    """What is shown of the probe's record of a validation."""
    start = f"{VALIDATION}/"
    return _kept(
        record, lambda key: key == "step" or (key.startswith(start) and any(part in key for part in _HEAT_PARTS))
    )


def of_timing(record: Mapping[str, Any]) -> Record:
    """What is shown of a record of timing.jsonl."""
    return _kept(record, _TIMING.__contains__)


def _kept(record: Mapping[str, Any], wanted: Callable[[str], bool]) -> Record:
    # The records of all runs share the text of their keys.
    return {sys.intern(key): value for key, value in record.items() if wanted(key)}
