"""Summary of decoding a data set: events left out or out of order, clock jumps, and the extent of the events."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradspike.data.events.clips import DECODED, Clip
from gradspike.data.events.recording import percent
from gradspike.shown import counted, listed

log = logging.getLogger(__name__)

KNOWN_SIZES = ((34, 34), (128, 128), (240, 180), (304, 240), (346, 260), (640, 480), (1280, 720))
"""Sensors of common data sets and cameras, smallest first."""


def describe_decoding(folder: Path, clips: Sequence[Clip]) -> dict[str, Any]:
    """Summarise the array `decoded` of a set (one row per recording). Empty for precomputed frames."""
    path = folder / "decoded.npy"
    if not path.is_file():
        return {}
    rows = dict(zip(DECODED, np.load(path).T, strict=True))
    # A file with clips in two parts was decoded once for each part.
    paths = [clips[clip].path for clip in rows["clip"].tolist()]
    last = sorted({file: row for row, file in enumerate(paths)}.values())
    total = {name: int(rows[name][last].sum()) for name in ("events", "special", "left_out", "disordered")}
    jumping = sorted({paths[row] for row in np.flatnonzero(rows["jumps"]).tolist()})
    return {
        **total,
        "left_out_share": total["left_out"] / max(total["events"] + total["left_out"], 1),
        "recordings_out_of_order": int(np.count_nonzero(rows["disordered"][last])),
        "recordings_with_jumps": jumping,
        "extent": [int(rows["width"].max()), int(rows["height"].max())],
        "sensor_stated": bool(rows["stated"].any()),
    }


def decoding_lines(decoded: Mapping[str, Any]) -> list[str]:
    """Warnings about the decoding, as sentences for the user."""
    lines = []
    if decoded.get("left_out"):
        lines.append(
            f"{counted(decoded['left_out'], 'event')} left out ({percent(decoded['left_out_share'])}): pulses, events "
            "marked as invalid, or addresses outside the sensor"
        )
    if decoded.get("disordered"):
        lines.append(
            f"{counted(decoded['recordings_out_of_order'], 'recording')} out of order: "
            f"{counted(decoded['disordered'], 'event')} sorted"
        )
    if jumping := decoded.get("recordings_with_jumps", ()):
        count = counted(len(jumping), "recording")
        lines.append(f"gap longer than the rest of the recording (a clock jump?) in {count}: {listed(jumping)}")
    return lines


def too_small(decoded: Mapping[str, Any], sensor: tuple[int, int]) -> tuple[int, int] | None:
    """The size the events need, if far smaller than the sensor: they would only fill a corner of the frames.

    Real recordings contain noise everywhere, so together they nearly fill the sensor. If a header states the sensor
    size, it is trusted.
    """
    if not decoded or decoded["sensor_stated"]:
        return None
    width, height = decoded["extent"]
    columns, rows = width / sensor[0], height / sensor[1]
    if min(columns, rows) > 0.5 and max(columns, rows) >= 0.75:
        return None
    for known in KNOWN_SIZES:
        if 0.9 * known[0] <= width <= known[0] and 0.9 * known[1] <= height <= known[1]:
            return known
    return width, height
