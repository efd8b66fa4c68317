"""Picture sources opened as a training opens them, and comparisons of their samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gradspike.data.options.pictures import Cifar10Config, ImageFolderConfig
from gradspike.data.sets.cifar import Cifar
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.source import Samples


def load_folder(data_dir: Path, source: Path, size: int = 32, classes: int = 3, **options: Any) -> Samples:
    config = ImageFolderConfig(source=str(source), image_size=size, classes=classes, **options)
    return ImageFolder(config, 4, data_dir).load()


def load_cifar(data_dir: Path, source: Path | None, classes: int = 3, **options: Any) -> Samples:
    config = Cifar10Config(source=None if source is None else str(source), classes=classes, **options)
    return load_alone(Cifar(config, 4, data_dir))


def load_alone(source: Cifar) -> Samples:
    """Without starting a process for each of the pickles, which hold four images."""
    source.prepare_workers = 1
    return source.load()


def by_name(samples: Samples) -> dict[str, np.ndarray]:
    return dict(zip(samples.names, np.asarray(samples.inputs).transpose(0, 2, 3, 1), strict=True))


def same_pictures(samples: Samples, written: dict[str, np.ndarray]) -> bool:
    found = by_name(samples)
    return found.keys() == written.keys() and all((found[name] == written[name]).all() for name in written)
