"""Compressed images, decoded and cropped by the loader's workers during training.

Time per image to decode and scale a crop to 224, on 20 ImageNet images and one core (benchmarks/data.py): PIL 4.5
ms, torchvision 3.2 ms; with the shorter side capped at 352 beforehand, 2.7 and 1.9 ms. PIL's draft mode saves a fifth
of the decoding time on large images and almost nothing on capped ones. So images are capped and decoded with
torchvision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as TF
from typing_extensions import override

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.source import Samples

CROP_ATTEMPTS = 10
ASPECTS = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class EncodedPictures:
    """Compressed images that can be indexed like a uint8 array [N, 3, image_size, image_size].

    stored: uint8, all files concatenated. offsets: int64 [N + 1]; file i is stored[offsets[i]:offsets[i + 1]].
    eval_shorter_side: length of the shorter side before the centre crop. resized_crop: smallest share of the area that
    a random crop keeps in training; None: the centre crop is also used in training.
    """

    stored: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    image_size: int
    eval_shorter_side: int
    resized_crop: float | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the equivalent array."""
        return len(self), 3, self.image_size, self.image_size

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Type of the equivalent array."""
        return np.dtype(np.uint8)

    def __getitem__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode images as in evaluation: shorter side scaled to eval_shorter_side, centre crop."""
        return self.fetch(indices, None)

    def fetch(self, indices: NDArray[np.int64], moment: tuple[int, int] | None) -> NDArray[np.uint8]:
        """Decode to uint8 [n, 3, image_size, image_size]. moment: (seed, epoch) in training, None in evaluation."""
        pictures = np.empty((len(indices), *self.shape[1:]), dtype=np.uint8)
        random = None
        if moment is not None and self.resized_crop is not None:
            random = CounterRandom.per_sample(*moment, np.asarray(indices, dtype=np.int64))
        for place, index in enumerate(indices):
            decoded = self.decode(int(index))
            if random is None:
                cropped = middle(decoded, self.eval_shorter_side, self.image_size)
            else:
                own = CounterRandom(random.key[place : place + 1])
                top, left, height, width = crop_box(decoded.shape[1], decoded.shape[2], self.resized_crop or 1.0, own)
                part = decoded[:, top : top + height, left : left + width]
                cropped = TF.resize(part, [self.image_size, self.image_size], antialias=True)
            pictures[place] = cropped.numpy()
        return pictures

    def decode(self, index: int) -> Tensor:
        """Decode an image at its stored size: uint8 [3, H, W]."""
        return decode_stored(self.stored[self.offsets[index] : self.offsets[index + 1]])


class EncodedSamples(Samples):
    """Samples whose `inputs` are EncodedPictures."""

    @override
    def fetch(self, indices: NDArray[np.int64], moment: tuple[int, int] | None = None) -> NDArray[Any]:
        pictures: EncodedPictures = self.inputs
        return pictures.fetch(indices, moment)


def decode_stored(content: NDArray[np.uint8]) -> Tensor:
    """Decode a JPEG, PNG or WebP file to uint8 [3, H, W]. Raises RuntimeError if that fails.

    16-bit images keep their upper 8 bits, as in `decode`.
    """
    # A copy, because torch does not accept read-only memory.
    picture: Tensor = decode_image(torch.from_numpy(np.array(content)), mode=ImageReadMode.RGB)
    if picture.dtype == torch.uint16:
        picture = (picture.to(torch.int32) >> 8).to(torch.uint8)
    if picture.dtype != torch.uint8:
        raise RuntimeError(f"is decoded to {picture.dtype} instead of uint8")
    return picture


def crop_box(
    height: int, width: int, smallest: float, random: CounterRandom[NDArray[np.int64]]
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop, distributed as in torchvision's RandomResizedCrop.

    The area is uniform between `smallest` and the whole image, the aspect ratio log-uniform between 3/4 and 4/3. If
    ten attempts do not fit, the result is the largest centre crop within these ratios.
    """
    for attempt in range(CROP_ATTEMPTS):
        draw = Draw.CROP + 4 * attempt
        area = height * width * (smallest + (1 - smallest) * float(random.uniform(draw)[0]))
        low, high = math.log(ASPECTS[0]), math.log(ASPECTS[1])
        aspect = math.exp(low + (high - low) * float(random.uniform(draw + 1)[0]))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(random.integers(draw + 2, 0, height - crop_height)[0])
            left = int(random.integers(draw + 3, 0, width - crop_width)[0])
            return top, left, crop_height, crop_width
    crop_width, crop_height = width, height
    if width / height < ASPECTS[0]:
        crop_height = round(width / ASPECTS[0])
    elif width / height > ASPECTS[1]:
        crop_width = round(height * ASPECTS[1])
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def middle(picture: Tensor, shorter_side: int, size: int) -> Tensor:
    """Scale the shorter side of uint8 [3, H, W] to `shorter_side` and crop the centre: [3, size, size]."""
    cropped: Tensor = TF.center_crop(TF.resize(picture, [shorter_side], antialias=True), [size, size])
    return cropped
