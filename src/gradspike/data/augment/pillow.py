"""Operations of Pillow on a batch, each image with its own amount: what RandAugment and colour jitter are made of.

timm's transforms apply Pillow to one image at a time. Here the same results come from gathered pixels and tables, on
the batch's device, with Pillow's formulas and rounding. All take uint8 [n, 1 or 3, H, W] and one amount per image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradspike.data.augment.picture_operations import blurred, equalizing


def blend(pictures: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """other + factors (pictures - other), as `Image.blend`: in float32, cut off towards zero. other: float32, integers.

    Pillow does without the last clip for factors from 0 to 1, where it has no effect.
    """
    own = pictures.float()
    return (other + factors.float().view(-1, 1, 1, 1) * (own - other)).clamp_(0, 255).to(torch.uint8)


def grey(pictures: Tensor) -> Tensor:
    """The luminance of `Image.convert("L")`: int32 [n, 1, H, W]."""
    values = pictures.int()
    if pictures.shape[1] == 1:
        return values
    red, green, blue = values.unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None]


def brightness(pictures: Tensor, factors: Tensor) -> Tensor:
    """`ImageEnhance.Brightness`: 0 is black, 1 the image."""
    return blend(pictures, torch.zeros((), device=pictures.device), factors)


def contrast(pictures: Tensor, factors: Tensor) -> Tensor:
    """`ImageEnhance.Contrast`: 0 is the mean luminance, rounded, 1 the image."""
    levels = grey(pictures)
    count = levels[0].numel()
    # Integers, so the mean is the same on every device: floor(sum / count + 1/2).
    mean = (2 * levels.sum((1, 2, 3), dtype=torch.int64) + count) // (2 * count)
    return blend(pictures, mean.float().view(-1, 1, 1, 1), factors)


def color(pictures: Tensor, factors: Tensor) -> Tensor:
    """`ImageEnhance.Color`: 0 is grey, 1 the image."""
    return blend(pictures, grey(pictures).float(), factors)


def sharpness(pictures: Tensor, factors: Tensor) -> Tensor:
    """`ImageEnhance.Sharpness`: 0 is smoothed, 1 the image. Pixels at the edge are not smoothed."""
    smooth = pictures.float()
    if min(pictures.shape[-2:]) > 2:
        smooth[..., 1:-1, 1:-1] = blurred(pictures)
    return blend(pictures, smooth, factors)


def autocontrast(pictures: Tensor) -> Tensor:
    """`ImageOps.autocontrast`: the darkest value of each channel becomes 0, the brightest 255."""
    low, high = (extreme.double() for extreme in torch.aminmax(pictures.flatten(2), dim=2))
    flat = high <= low
    # torch computes 255.0 / x as 255.0 times a reciprocal, which rounds twice.
    scale = torch.where(flat, 1.0, torch.div(high.new_tensor(255.0), torch.where(flat, 1.0, high - low)))[
        ..., None, None
    ]
    offset = torch.where(flat, 0.0, -low)[..., None, None] * scale
    return (pictures.double() * scale + offset).clamp_(0, 255).to(torch.uint8)


def equalize(pictures: Tensor) -> Tensor:
    """`ImageOps.equalize`: each channel's histogram becomes flat. One of a few levels may stay as it is."""
    index = pictures.flatten(2).long()
    return equalizing(index).gather(2, index).view_as(pictures)


def invert(pictures: Tensor) -> Tensor:
    """255 minus each value."""
    return 255 - pictures


def posterize(pictures: Tensor, bits: Tensor) -> Tensor:
    """Keep so many of the 8 bits of each value, the high ones. bits: integers from 0 to 8."""
    return pictures & (256 - (1 << (8 - bits.long()))).to(torch.uint8).view(-1, 1, 1, 1)


def solarize(pictures: Tensor, thresholds: Tensor) -> Tensor:
    """Invert values from the threshold on."""
    return torch.where(pictures.int() < thresholds.view(-1, 1, 1, 1), pictures, 255 - pictures)


def solarize_add(pictures: Tensor, amounts: Tensor) -> Tensor:
    """Add to values below 128, up to 255."""
    brighter = (pictures.int() + amounts.int().view(-1, 1, 1, 1)).clamp_(max=255).to(torch.uint8)
    return torch.where(pictures < 128, brighter, pictures)


def affine(pictures: Tensor, matrices: Tensor, fill: Tensor) -> Tensor:
    """`Image.transform(AFFINE, BICUBIC)`: the pixel at (x, y) comes from (a x + b y + c, d x + e y + f).

    matrices: float64 [n, 6], a to f, for coordinates of which pixel 0 covers 0 to 1. fill: uint8 [C], for pixels whose
    source is outside. Edges are repeated for the interpolation, along rows first, which is cut off towards zero.
    """
    height, width = pictures.shape[-2:]
    a, b, c, d, e, f = (one.view(-1, 1, 1) for one in matrices.unbind(1))
    y = torch.arange(height, device=pictures.device, dtype=torch.float64).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=pictures.device, dtype=torch.float64).view(1, 1, -1) + 0.5
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    left, top = (from_x - 0.5).floor(), (from_y - 0.5).floor()
    flat = pictures.flatten(2)
    rows = []
    for row in range(-1, 3):
        line = (top.long() + row).clamp_(0, height - 1) * width
        pixels = [line + (left.long() + column).clamp_(0, width - 1) for column in range(-1, 3)]
        values = [flat.gather(2, pixel.flatten(1)[:, None].expand_as(flat)).double() for pixel in pixels]
        rows.append(_cubic(values, (from_x - 0.5 - left).flatten(1)[:, None]))
    found = _cubic(rows, (from_y - 0.5 - top).flatten(1)[:, None])
    result = found.clamp_(0, 255).to(torch.uint8).view_as(pictures)
    return torch.where(inside[:, None], result, fill.view(1, -1, 1, 1))


def _cubic(values: list[Tensor], part: Tensor) -> Tensor:
    """Keys' cubic with a = -1, as in Pillow's transformations."""
    one, two, three, four = values
    slope = three - one
    square = 2 * (one - two) + three - four
    cube = -one + two - three + four
    return two + part * (slope + part * (square + part * cube))
