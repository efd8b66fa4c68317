"""Valid JSON for any numbers, and files of one JSON object a line. All JSON files are written through this module."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def finite(value: Any) -> Any:
    """Replace NaN and infinity in `value` by None, because JSON cannot represent them."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, **options: Any) -> str:
    """`value` as JSON, with null for NaN and infinity. options: arguments of `json.dumps`, such as indent=2."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(finite(value), allow_nan=False, **options)


def readable(file: Path, kind: type[Any] = dict) -> Any:
    """The content of a JSON file; None if the file is missing or damaged, or contains no `kind`."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, kind) else None


def readable_lines(file: Path, damaged: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line; damaged lines are skipped, and a missing file has none.

    damaged: takes the lines that are no JSON.
    """
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                if damaged is not None:
                    damaged.append(line)
                continue
            if isinstance(record, dict):
                yield record
