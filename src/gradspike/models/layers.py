"""Pieces that backbones share: folding time, convolutions and initialisation."""

from __future__ import annotations

from torch import Tensor, nn


def fold_time(inputs: Tensor) -> tuple[Tensor, bool]:
    """Frames [T, B, C, H, W] as [T*B, C, H, W] (a view), or still images [B, C, H, W] as they are; and whether they are
    still.
    """
    return (inputs, True) if inputs.ndim == 4 else (inputs.flatten(0, 1), False)


def unfold_time(x: Tensor, time_steps: int) -> Tensor:
    """[T*B, ...] as [T, B, ...] (a view)."""
    return x.view(time_steps, -1, *x.shape[1:])


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps the size at stride 1, without bias since a norm follows."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


def initialise(model: nn.Module) -> None:
    """Kaiming normal over the fan out for every convolution, as the papers' networks do (He et al., ICCV 2015)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
