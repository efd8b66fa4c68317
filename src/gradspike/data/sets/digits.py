"""digits: 1,797 scanned digits of 8x8 pixels, included in scikit-learn (Alpaydin & Kaynak, UCI, 1998).

They stay at 8x8: upscaling adds computation but no information, and 2x2 pixels remain after two pooling layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import DigitsConfig
from gradspike.data.prepared.cache import prepared
from gradspike.data.source import Samples, Source, stratified_split

VERSION = 1
SPLIT_SEED = 1797


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
    """Read images (uint8 [1797, 8, 8], 17 grey levels), labels, and the fixed split (70/10/20 % of each class)."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    levels = bunch.images.astype(np.int64)
    labels = bunch.target.astype(np.int64)
    return (
        ((levels * 255 + 8) // 16).astype(np.uint8),
        labels,
        stratified_split(labels, val=0.1, test=0.2, seed=SPLIT_SEED),
    )


class Digits(Source[DigitsConfig]):
    """The scanned digits as images [1, 8, 8]."""

    Config: ClassVar[type[DatasetConfig]] = DigitsConfig

    @override
    def load(self) -> Samples:
        opened = prepared(self.data_dir, "digits", {"version": VERSION}, _build)
        arrays, facts = opened.arrays, opened.facts
        return Samples(
            arrays["inputs"],
            arrays["labels"],
            arrays["splits"],
            mean=tuple(facts["mean"]),
            std=tuple(facts["std"]),
            folder=opened.folder,
        )


def _build(folder: Path) -> dict[str, Any]:
    images, labels, splits = read_digits()
    np.save(folder / "inputs.npy", images[:, None])
    np.save(folder / "labels.npy", labels)
    np.save(folder / "splits.npy", splits)
    train = images[splits == 0].astype(np.float64) / 255
    return {"mean": [float(train.mean())], "std": [float(train.std())]}
