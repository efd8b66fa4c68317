"""The record of a robustness evaluation in the run folder: robustness/<split>_<what>.json, and .png beside it.

Every setting that shapes the result is in the name unless it has its default (a long name is replaced by its digest).
So evaluations with different settings stand side by side, and the record of the ordinary evaluation is never touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradspike.exhausted import not_written
from gradspike.robustness.measure import Robustness
from gradspike.robustness.options import EPSILON, LEVELS, RESTARTS, STEPS, RobustnessKeys, settings_of
from gradspike.runs.files import write_json
from gradspike.runs.folder import RunFolder

FOLDER = "robustness"
DEFAULTS = {"steps": STEPS, "restarts": RESTARTS, "seed": 0}
LONGEST = 100  # letters of a name, of which file systems allow 255


def record_path(run: RunFolder, split: str, checkpoint: str, keys: RobustnessKeys) -> Path:
    """The JSON file of these settings; it need not exist."""
    default = EPSILON if keys.attack is not None else LEVELS[keys.corrupt or "noise"]
    words = [split, str(keys.kind)]
    if keys.attack is not None or keys.strengths != default:
        words.append("-".join(f"{value:.6g}" for value in keys.strengths))
    for key in ("steps", "step_size", "restarts", "surrogate", "width", "seed", "samples"):
        value = getattr(keys, key)
        if value not in (None, DEFAULTS.get(key)):
            words.append(f"{key}-{value:.6g}" if isinstance(value, float) else f"{key}-{value}")
    if checkpoint != "both":
        words.append(checkpoint)
    name = "_".join(words).replace(":", ".").replace("/", ".")
    if len(name) > LONGEST:
        name = f"{split}_{keys.kind}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return run.path / FOLDER / f"{name}.json"


def write_robustness(
    path: Path, split: str, keys: RobustnessKeys, found: Mapping[str, Robustness], data: Mapping[str, str]
) -> None:
    """Write the record; `data` says where moved data were. Raises UserError if it cannot be written."""
    checkpoints = {
        name: {
            "epoch": one.epoch,
            **({} if one.without_gradient is None else {"without_gradient": one.without_gradient}),
            "levels": [
                {
                    "strength": level.strength,
                    "accuracy": level.accuracy,
                    "interval": list(level.interval),
                    "correct": level.correct,
                    "samples": level.samples,
                }
                for level in one.levels
            ],
        }
        for name, one in found.items()
    }
    content: dict[str, Any] = {"split": split, "settings": settings_of(keys), "checkpoints": checkpoints}
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise not_written(path.parent, error, verb="be written to") from error
    write_json(path, {**content, **({"data": dict(data)} if data else {})})
