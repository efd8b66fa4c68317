"""Event sources opened as a training opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradspike.data.events.aedat2 import aedat2_bytes
from gradspike.data.events.recording import Recording
from gradspike.data.events.source import EventSource
from gradspike.data.registry import DATASETS
from gradspike.data.source import SPLITS, Samples
from helpers import event_samples as made


def source(name: str, data_dir: Path, time_steps: int = 4, **options: Any) -> EventSource[Any]:
    config = DATASETS.config_class(name)(name=name, **options)
    made_source: EventSource[Any] = DATASETS.implementation(name)(config, time_steps, data_dir)
    made_source.prepare_workers = 1
    return made_source


def load(name: str, data_dir: Path, time_steps: int = 4, **options: Any) -> Samples:
    return source(name, data_dir, time_steps, **options).load()


def split_of(samples: Samples) -> dict[str, str]:
    return {samples.names[i]: SPLITS[samples.splits[i]] for i in range(len(samples.names))}


def write_sessions(folder: Path, seconds: float = 0.9) -> dict[str, Recording]:
    """One recording per class and session, with the class in the file name."""
    written = {}
    for session in ("session_a", "session_b"):
        for number, name in enumerate(("Caixa", "Caneca")):
            events = made.recording(number, count=900, size=128, duration_us=round(seconds * 1e6))
            made.write(folder / session / f"{name}.aedat", aedat2_bytes(events))
            written[f"{session}/{name}.aedat"] = events
    return written


SESSIONS: dict[str, Any] = {"train_folder": "session_a", "test_folder": "session_b", "image_size": 16, "classes": 2}
