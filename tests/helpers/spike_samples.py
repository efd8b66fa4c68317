"""Small HDF5 files of SHD and SSC, written to the published structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("zero", "null", "one")
SPLITS = {"shd": ("shd_train.h5", "shd_test.h5"), "ssc": ("ssc_train.h5", "ssc_valid.h5", "ssc_test.h5")}
Train = tuple[np.ndarray, np.ndarray]


def train(seed: int, label: int, count: int = 80, duration: float = 0.9) -> Train:
    """Sorted float16 seconds and units, more of them in the band of channels of `label`."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, duration, count)).astype(np.float16)
    units = np.where(
        rng.random(count) < 0.7, rng.integers(200 * label, 200 * label + 100, count), rng.integers(0, 700, count)
    )
    return times, units.astype(np.uint16)


def write_h5(
    path: Path,
    trains: list[Train],
    labels: list[int],
    speakers: list[int],
    change: Callable[[Any], None] | None = None,
) -> None:
    """Write a file; `change` gets the open h5py.File at the end."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, kind, column in (("times", np.float16, 0), ("units", np.uint16, 1)):
            stored = file.create_dataset(f"spikes/{name}", (len(trains),), dtype=h5py.vlen_dtype(kind))
            for number, spikes in enumerate(trains):
                stored[number] = spikes[column]
        file["labels"] = np.array(labels, dtype=np.uint16)
        file["extra/speaker"] = np.array(speakers, dtype=np.uint16)
        file["extra/keys"] = np.array([name.encode() for name in CLASSES])
        file["extra/meta_info/gender"] = np.array([b"female", b"male"])
        if change is not None:
            change(file)


def write_spikes(folder: Path, name: str = "shd", of_each: int = 4, duration: float = 0.9) -> Mapping[str, list[Train]]:
    """The files of a data set, with `of_each` recordings of each class and four speakers. Returns them by file."""
    written = {}
    for number, file in enumerate(SPLITS[name]):
        labels = [label for _ in range(of_each) for label in range(len(CLASSES))]
        written[file] = [train(1000 * number + at, label, duration=duration) for at, label in enumerate(labels)]
        write_h5(folder / file, written[file], labels, [at // len(CLASSES) % 4 for at in range(len(labels))])
    return written


def spike_source(name: str) -> Callable[[Path], dict[str, Any]]:
    def source(folder: Path) -> dict[str, Any]:
        write_spikes(folder / "files", name)
        return {"source": str(folder / "files"), "classes": len(CLASSES)}

    return source
