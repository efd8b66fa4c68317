"""Shared parts of backbones: folding time, convolutions, pooling, width and initialisation."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gradspike.models.pooling import AvgPool2x2, MaxPool2d
from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import repeat_in_time, steps_of_pass

VECTOR = 16
"""float32 numbers in the widest vector register of a CPU."""


def fold_time(inputs: Tensor) -> tuple[Tensor, bool]:
    """Frames [T, B, C, H, W] as [T*B, C, H, W] (a view), or still images [B, C, H, W] unchanged; and whether they are
    still.
    """
    return (inputs, True) if inputs.ndim == 4 else (inputs.flatten(0, 1), False)


def unfold_time(x: Tensor, time_steps: int) -> Tensor:
    """[T*B, ...] as [T, B, ...] (a view)."""
    return x.view(steps_of_pass(time_steps), -1, *x.shape[1:])


def scaled(channels: int, width: float) -> int:
    """`width` times as many channels, rounded to the nearest integer (halves to the even one), at least 1."""
    return max(1, round(channels * width))


def conv3x3(channels_in: int, channels_out: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """3x3 convolution that keeps the size at stride 1; by default without bias, because a norm follows."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=bias)


def conv1x1(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution; without bias, because a norm follows."""
    # oneDNN's weight gradient of a strided, channels-last 1x1 convolution with few channels is wrong or overwrites
    # other memory (github.com/uxlfoundation/oneDNN/issues/6035; torch 2.15). So positions are selected beforehand.
    kind = PickedConv1x1 if stride > 1 and channels_in < VECTOR else nn.Conv2d
    return kind(channels_in, channels_out, 1, stride, bias=False)


def biased_conv1x1(channels_in: int, channels_out: int, bias: bool = True) -> nn.Conv2d:
    """1x1 convolution, the linear layer of each token."""
    return nn.Conv2d(channels_in, channels_out, 1, bias=bias)


class PickedConv1x1(nn.Conv2d):
    """A strided 1x1 convolution, computed with stride 1 on the positions that it reads."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight)


def pool2x2(kind: Literal["avg", "max"]) -> nn.Module:
    """Pooling that halves the size and drops an odd last row or column."""
    return AvgPool2x2() if kind == "avg" else MaxPool2d(2)


def initialise(model: nn.Module) -> None:
    """Kaiming normal (fan out) for every convolution, as in the papers' networks (He et al., ICCV 2015).

    Linear layers keep torch's initialisation, as in the released code of MPD-AGL.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def truncated_normal(layer: nn.Conv2d | nn.Linear) -> None:
    """Weights from a truncated normal with std 0.02, biases 0, as in transformers."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def initialise_tokens(model: nn.Module) -> None:
    """`truncated_normal` for 1x1 convolutions and linear layers, as for Spikformer's linear layers.

    Other convolutions keep torch's initialisation, as in the released code.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
            truncated_normal(layer)


def normed_stem(norm: ChannelNorm, y: Tensor, static: bool, time_steps: int) -> Tensor:
    """The current [T*B, ...] of a stem without a neuron, from y [T*B, ...], or [B, ...] if it is `static`."""
    current: Tensor = norm(y, repeats=time_steps if static else 1)
    return repeat_in_time(current, time_steps) if static and not norm.per_step else current
