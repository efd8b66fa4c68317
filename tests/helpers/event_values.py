"""Folders with one invalid recording, and what a source makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gradspike.data.events.recording import Recording
from gradspike.data.events.source import EventSource
from gradspike.data.registry import DATASETS
from helpers import event_samples as made


def load(data_dir: Path, name: str = "event_folder", time_steps: int = 10, **options: Any) -> EventSource[Any]:
    if name == "event_folder":
        options = {"image_size": 16, "classes": 1, **options}
    source: EventSource[Any] = DATASETS.implementation(name)(
        DATASETS.config_class(name)(name=name, **options), time_steps, data_dir
    )
    source.prepare_workers = 1
    source.load()
    return source


def facts(source: EventSource[Any]) -> dict[str, Any]:
    meta = json.loads((source.load_frames().folder / "meta.json").read_text())
    decoded: dict[str, Any] = meta["facts"]["decoded"]
    return decoded


def folder_of(tmp_path: Path, name: str, *contents: bytes) -> Path:
    """An event folder of one class with the same recordings to train and to test."""
    for split in ("train", "test"):
        for number, content in enumerate(contents):
            made.write(tmp_path / f"event_folder/{split}/mug/{number}{name}", content)
    return tmp_path


def over_sensor(width: int, height: int, count: int = 3000, seed: int = 0, duration_us: int = 100_000) -> Recording:
    """Random events over a whole sensor."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    t = np.sort(rng.integers(0, duration_us, count))
    return Recording(t, x.astype(np.int16), y.astype(np.int16), rng.random(count) < 0.5)


def aedat2(address: np.ndarray, t: np.ndarray, chip: str | None = None) -> bytes:
    header = b"#!AER-DAT2.0\r\n# Timestamps tick is 1 us\r\n"
    if chip is not None:
        header += f"# AEChip: {chip}\r\n".encode()
    words = np.empty((len(address), 2), dtype=">u4")
    words[:, 0], words[:, 1] = address, t & 0xFFFFFFFF
    return header + words.tobytes()


def same(one: Recording, two: Recording) -> bool:
    return all((getattr(one, field) == getattr(two, field)).all() for field in "txyp")
