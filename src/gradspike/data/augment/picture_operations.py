"""AutoAugment's operations on a batch, with a different operation for each image and the results of torchvision.

kornia draws one sub-policy for a whole batch and interpolates differently from PIL; torchvision's functions take one
magnitude per batch. Here, torchvision's results are tabulated once (256 values, or the source of every pixel), and the
tables are applied per image. Operations that depend on the image use torchvision's formula and rounding. Results
are bit-identical on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

Operation = tuple[str, float]
"""An operation and its magnitude in torchvision's units: shear as a fraction, translation in pixels, rotation in
degrees, blending factor minus 1, bits to keep, or threshold from 0 to 1."""


class Kind(IntEnum):
    """How an operation is computed. The first four map values through a table of 256."""

    FIXED = 0
    CONTRAST = 1
    AUTOCONTRAST = 2
    EQUALIZE = 3
    GEOMETRY = 4
    COLOR = 5
    SHARPNESS = 6
    NONE = 7


KINDS = {
    "Identity": Kind.NONE,
    "ShearX": Kind.GEOMETRY,
    "ShearY": Kind.GEOMETRY,
    "TranslateX": Kind.GEOMETRY,
    "TranslateY": Kind.GEOMETRY,
    "Rotate": Kind.GEOMETRY,
    "Brightness": Kind.FIXED,
    "Posterize": Kind.FIXED,
    "Solarize": Kind.FIXED,
    "Invert": Kind.FIXED,
    "Contrast": Kind.CONTRAST,
    "AutoContrast": Kind.AUTOCONTRAST,
    "Equalize": Kind.EQUALIZE,
    "Color": Kind.COLOR,
    "Sharpness": Kind.SHARPNESS,
}


@dataclass(frozen=True)
class _Tables:
    """Tables that are independent of the images, for one device and one image size."""

    values: Tensor
    """uint8 [operations, 256]: the new value of each value (FIXED)."""
    sources: Tensor
    """int64 [operations, H * W]: the source of each pixel, 0 for none (GEOMETRY)."""
    inside: Tensor
    """uint8 [operations, 1, H * W]: 1 for pixels with a source (GEOMETRY)."""
    factors: Tensor
    """float32 [operations, 2]: weights of the image and of the other image in a blend."""


class PictureOperations:
    """A list of operations that are applied to images by index."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self.kinds = np.array([KINDS[name] for name, _ in operations], dtype=np.int64)
        # The row of an operation in the tables of its kind.
        self.rows = np.zeros(len(operations), dtype=np.int64)
        for members in (self.kinds == Kind.FIXED, self.kinds == Kind.GEOMETRY):
            self.rows[members] = np.arange(members.sum())
        for kind in (Kind.CONTRAST, Kind.COLOR, Kind.SHARPNESS):
            self.rows[self.kinds == kind] = np.flatnonzero(self.kinds == kind)
        self._tables: dict[tuple[torch.device, int, int], _Tables] = {}

    def apply(self, pictures: Tensor, *rounds: NDArray[np.int64]) -> Tensor:
        """Apply the operations `rounds` (indices, int64 [B]) in order to the images, uint8 [B, 1 or 3, H, W].

        Indices stay on the host, where the images are sorted by kind of operation without waiting for the device.
        """
        tables = self._for(pictures)
        arrangement = np.arange(len(pictures))
        for numbers in rounds:
            order = np.argsort(self.kinds[numbers[arrangement]], kind="stable")
            arrangement = arrangement[order]
            pictures = pictures.index_select(0, _to_device(order, pictures.device))
            self._one_round(pictures, numbers[arrangement], tables)
        back = np.empty_like(arrangement)
        back[arrangement] = np.arange(len(arrangement))
        return pictures.index_select(0, _to_device(back, pictures.device))

    def _one_round(self, pictures: Tensor, numbers: NDArray[np.int64], tables: _Tables) -> None:
        """Apply one operation to each of `pictures`, which are sorted by kind, in place."""
        rows = _to_device(self.rows[numbers], pictures.device)
        bounds = [0, *np.searchsorted(self.kinds[numbers], np.arange(len(Kind)), side="right").tolist()]
        parts = {kind: slice(bounds[kind], bounds[kind + 1]) for kind in Kind if bounds[kind] < bounds[kind + 1]}
        by_table = pictures[: bounds[Kind.EQUALIZE + 1]]
        if len(by_table):
            index = by_table.flatten(2).long()
            new_values = [
                _value_table(kind, by_table[part], index[part], rows[part], tables)
                for kind, part in parts.items()
                if kind <= Kind.EQUALIZE
            ]
            by_table.copy_(torch.cat(new_values).gather(2, index).view_as(by_table))
        for kind, part in parts.items():
            if kind == Kind.GEOMETRY:
                pictures[part] = _move(pictures[part], rows[part], tables)
            elif kind == Kind.COLOR and pictures.shape[1] == 3:
                pictures[part] = _blend(pictures[part], _grey(pictures[part]), tables.factors[rows[part]])
            elif kind == Kind.SHARPNESS:
                inner = pictures[part, :, 1:-1, 1:-1]
                smooth = blurred(pictures[part])
                # Here torchvision adds the difference instead of two products, which rounds differently.
                change = tables.factors[rows[part], 1].double().view(-1, 1, 1, 1) * (smooth - inner)
                inner.copy_((inner + change).float().clamp_(0, 255))

    def _for(self, pictures: Tensor) -> _Tables:
        height, width = pictures.shape[-2:]
        key = (pictures.device, height, width)
        if key not in self._tables:
            moves = [_source(name, value, height, width) for name, value in self._of(Kind.GEOMETRY)]
            sources = torch.stack(moves) if moves else torch.zeros(0, height * width, dtype=torch.int64)
            fixed = [_fixed_values(name, value) for name, value in self._of(Kind.FIXED)]
            self._tables[key] = _Tables(
                values=(torch.stack(fixed) if fixed else torch.zeros(0, 256, dtype=torch.uint8)).to(pictures.device),
                sources=sources.clamp(min=0).to(pictures.device),
                inside=(sources >= 0).to(torch.uint8)[:, None].to(pictures.device),
                factors=torch.tensor([[1 + value, 1 - (1 + value)] for _, value in self.operations]).to(
                    pictures.device
                ),
            )
        return self._tables[key]

    def _of(self, kind: Kind) -> list[Operation]:
        return [self.operations[number] for number in np.flatnonzero(self.kinds == kind)]


def _to_device(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(numbers).to(device, non_blocking=True)


def _fixed_values(name: str, magnitude: float) -> Tensor:
    """uint8 [256]: torchvision's result for each value."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)
    changed: Tensor
    if name == "Brightness":
        changed = TF.adjust_brightness(values, 1.0 + magnitude)
    elif name == "Posterize":
        changed = TF.posterize(values, int(magnitude))
    elif name == "Solarize":
        changed = TF.solarize(values, 255 * magnitude)
    else:
        changed = TF.invert(values)
    return changed.flatten()


def _source(name: str, magnitude: float, height: int, width: int) -> Tensor:
    """int64 [H * W]: the source of each pixel in torchvision's result (nearest neighbour), -1 for none."""
    # Numbers below 2**24 are exact in float32; torchvision fills with 0.
    pixels = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, height, width)
    moved: Tensor
    if name == "Rotate":
        moved = TF.rotate(pixels, magnitude)
    else:
        shear, translate, centre = [0.0, 0.0], [0, 0], None
        axis = 0 if name.endswith("X") else 1
        if name.startswith("Shear"):
            shear[axis], centre = math.degrees(math.atan(magnitude)), [0.0, 0.0]
        else:
            translate[axis] = int(magnitude)
        moved = TF.affine(pixels, angle=0.0, translate=translate, scale=1.0, shear=shear, center=centre)
    return moved.long().flatten() - 1


def _move(pictures: Tensor, rows: Tensor, tables: _Tables) -> Tensor:
    flat = pictures.flatten(2)
    moved = flat.gather(2, tables.sources[rows][:, None].expand_as(flat))
    return moved.mul_(tables.inside[rows]).view_as(pictures)


def _value_table(kind: Kind, pictures: Tensor, index: Tensor, rows: Tensor, tables: _Tables) -> Tensor:
    """uint8 [n, C, 256]: the new value of each value, per image and channel. index: images, int64 [n, C, HW]."""
    channels = pictures.shape[1]
    if kind == Kind.FIXED:
        return tables.values[rows][:, None].expand(-1, channels, -1)
    values = torch.arange(256, dtype=torch.float32, device=pictures.device)
    if kind == Kind.CONTRAST:
        grey = _grey(pictures) if channels == 3 else pictures
        # Integer sums are exact in any order, so a batch gives the same result as a single image.
        mean = grey.sum((1, 2, 3), dtype=torch.int64).float() / grey[0].numel()
        blended = _blend(values, mean.view(-1, 1, 1, 1), tables.factors[rows])
        return blended.flatten(1, 2).expand(-1, channels, -1)
    if kind == Kind.AUTOCONTRAST:
        low, high = (extreme.float() for extreme in torch.aminmax(pictures.flatten(2), dim=2, keepdim=True))
        flat = high == low
        scale = torch.where(flat, 1.0, (high - low) * (1.0 / 255))
        return ((values - low.masked_fill(flat, 0.0)) / scale).clamp_(0, 255).to(torch.uint8)
    return equalizing(index)


def equalizing(index: Tensor) -> Tensor:
    """The table that equalises each channel's histogram as in PIL and torchvision: uint8 [n, C, 256]."""
    count = torch.zeros(*index.shape[:2], 256, dtype=torch.int32, device=index.device)
    count.scatter_add_(2, index, count.new_ones(1).expand_as(index))
    up_to = count.cumsum(2, dtype=torch.int32)
    of_largest = count.gather(2, up_to.argmax(2, keepdim=True))
    step = (index.shape[2] - of_largest) // 255
    below = up_to - count
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    # An image with almost a single value stays unchanged (step 0).
    unchanged = torch.arange(256, dtype=torch.int32, device=index.device)
    return torch.where(step > 0, table, unchanged).to(torch.uint8)


def _grey(pictures: Tensor) -> Tensor:
    """Integer luminance (torchvision's weights) of uint8 [n, 3, H, W]: float32 [n, 1, H, W]."""
    red, green, blue = pictures.unbind(1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()[:, None]


def _blend(pictures: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """pictures * factors[:, 0] + other * factors[:, 1], clipped to uint8.

    torchvision rounds the first product to float32, and the sum once (fused multiply-add).
    """
    own, others = factors.view(-1, 2, 1, 1, 1).unbind(1)
    blended = (pictures * own).double() + others.double() * other
    return blended.float().clamp_(0, 255).to(torch.uint8)


def blurred(pictures: Tensor) -> Tensor:
    """Inner pixels, smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13 and rounded: float32 [n, C, H - 2, W - 2]."""
    values = pictures.float()
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    # A multiple of 1/13 is never halfway between integers, so rounding does not depend on how it is computed.
    return (sums + 4 * values[..., 1:-1, 1:-1]).mul_(1 / 13).round_()
