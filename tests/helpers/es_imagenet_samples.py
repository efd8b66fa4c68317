"""A small ES-ImageNet, written to its published structure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

Sample = tuple[np.ndarray, np.ndarray, int, int, int]
"""pos and neg, uint8 [E, 3] of row, column and step; label; the sizes a and b."""


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def sample(seed: int, label: int) -> Sample:
    """Events in a part of `a` rows and `b` columns, which is not square; some repeat, some are near the border."""
    rng = np.random.default_rng(seed)
    a, b = ((254, 171), (188, 254), (97, 120))[seed % 3]
    pos, neg = (
        np.stack([rng.integers(0, side, count) for side in (a, b, 8)], axis=1).astype(np.uint8)
        for count in (300, 200 + seed)
    )
    for events in (pos, neg):
        events[:, 2] += 1
    return np.concatenate([pos, pos[:5]]), neg, label, a, b


def write_es_imagenet(
    folder: Path, labels: tuple[int, ...] = (0, 1, 2), train: int = 4, val: int = 2
) -> dict[str, Sample]:
    """train/class<label>/<name>.npz, val/<name>.npz and both lists. Returns the samples by name."""
    written: dict[str, Sample] = {}
    for top, count, name in (("train", train, "trainlabel.txt"), ("val", val, "vallabel.txt")):
        lines = []
        for label in labels:
            for number in range(count):
                file = f"n{label:08d}_{top}_{number}.npz"
                path = f"{top}/class{label}/{file}" if top == "train" else f"{top}/{file}"
                one = sample(len(written), label)
                pos, neg, _, a, b = written[path] = one
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(npz(pos=pos, neg=neg))
                lines.append(f"{file} {label} {a} {b}\n")
        (folder / name).write_text("".join(lines))
    return written


def es_imagenet_source(folder: Path) -> dict[str, Any]:
    write_es_imagenet(folder / "files")
    return {"source": str(folder / "files"), "classes": 3}
