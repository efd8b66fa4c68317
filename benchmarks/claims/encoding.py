"""Does an adaptive threshold keep the structure of an image better than a fixed one? Claim A15.

    python benchmarks/claims/encoding.py <cifar10.zip>

Our reading of the paper's Figure 4: one neuron for each pixel, whose current at every step is the grey image,
normalised to mean 0 and spread 1. The picture is the firing rate over T steps; SSIM compares it with the grey image.
The adaptive threshold is mean + std of the potential of all neurons at this step, as DS-ATGO's.
"""

from __future__ import annotations

import sys
import zipfile
from io import BytesIO
from random import Random
from typing import Any

import torch
from PIL import Image
from store import store
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.transforms.functional import to_tensor

from gradspike.tools.claims.pictures import IMAGE, RATE
from gradspike.tools.claims.summary import Record

SEEDS, IMAGES, STEPS, TAU = 5, 100, 4, 0.2
THRESHOLDS = ("0.25", "1.0", "2.5", "adaptive")


def grey_images(archive: zipfile.ZipFile, names: list[str]) -> Tensor:
    """[N, 1, 32, 32], 0 to 1."""
    return torch.stack([to_tensor(Image.open(BytesIO(archive.read(name))).convert("L")) for name in names])


def rate_picture(images: Tensor, threshold: str) -> Tensor:
    """The firing rate of each pixel's neuron over the steps, with a hard reset; each image by itself."""
    dims = (1, 2, 3)
    current = (images - images.mean(dims, keepdim=True)) / images.std(dims, keepdim=True)
    u, spikes, total = torch.zeros_like(current), torch.zeros_like(current), torch.zeros_like(current)
    for _ in range(STEPS):
        u = TAU * u * (1 - spikes) + current
        if threshold == "adaptive":
            theta = u.mean(dims, keepdim=True) + u.std(dims, keepdim=True)
        else:
            theta = torch.tensor(float(threshold))
        spikes = (u >= theta).float()
        total += spikes
    return total / STEPS


def rows(picture: Tensor) -> tuple[tuple[float, ...], ...]:
    """A picture [H, W] as rows of numbers with three digits."""
    return tuple(tuple(float(f"{value:.3g}") for value in row) for row in picture.tolist())


def similarity(pictures: Tensor, images: Tensor) -> float:
    """SSIM, mean over the images, with four digits."""
    value = structural_similarity_index_measure(pictures, images, data_range=1.0)
    assert isinstance(value, Tensor)
    return float(f"{float(value):.4g}")


def main(source: str) -> None:
    """Measure and store."""
    runs = []
    with zipfile.ZipFile(source) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("test/") and not name.endswith("/"))
        for seed in range(SEEDS):
            images = grey_images(archive, Random(seed).sample(names, IMAGES))
            for threshold in THRESHOLDS:
                rates = rate_picture(images, threshold)
                values, grids = {"ssim": similarity(rates, images)}, {}
                if seed == 0:  # its first image is shown
                    values["picture_ssim"] = similarity(rates[:1], images[:1])
                    grids = {RATE: rows(rates[0, 0])}
                    if threshold == THRESHOLDS[0]:
                        grids[IMAGE] = rows(images[0, 0])
                runs.append(Record(seed=seed, parameters={"threshold": threshold}, values=values, grids=grids))
                print(f"images {seed}, threshold {threshold}: SSIM {values['ssim']:.3f}")
    setting: dict[str, Any] = {
        "dataset.name": "cifar10",
        "dataset.image_size": 32,
        "test samples": IMAGES,
        "time_steps": STEPS,
    }
    question = "Does an adaptive threshold keep the structure of an image better than a fixed one?"
    store(__file__, question, "<cifar10.zip>", setting, runs)


if __name__ == "__main__":
    main(sys.argv[1])
