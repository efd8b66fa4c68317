"""Images for tests of augmentation: smooth ones as photographs are, and the extremes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def photographs(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """uint8 [count, 3, height, width]. The first four: one value, one dark channel, noise, next to one value."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 3, max(height // 6, 2), max(width // 6, 2), generator=generator)
    smooth = F.interpolate(low, (height, width), mode="bicubic") * 220
    grain = torch.rand(count, 3, height, width, generator=generator)
    pictures = (smooth + 20 * grain).clamp(0, 255).to(torch.uint8)
    for place, picture in enumerate(pictures[:4]):
        if place == 0:
            picture.fill_(7)
        elif place == 1:
            picture[0] = 0
        elif place == 2:
            picture.copy_(torch.randint(0, 256, picture.shape, generator=generator))
        else:
            picture.copy_(torch.where(grain[3] < 0.01, 9, 200))
    return pictures
