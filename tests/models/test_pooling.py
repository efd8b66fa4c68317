"""Pooling: torch's numbers bit for bit, from operations that are deterministic on CUDA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from gradspike.models import determinism, pooling
from gradspike.models.registry import MODELS
from helpers.networks import KINDS, build, changed, config_for

# What torch refuses, and backward passes that add atomically on CUDA.
NOT_DETERMINISTIC = (
    *determinism.NOT_DETERMINISTIC,
    *("_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "max_pool2d_with_indices_backward"),
    *("fractional_max_pool2d_backward", "reflection_pad2d_backward", "replication_pad2d_backward", "scatter_add"),
    *("upsample_bilinear2d_backward", "upsample_nearest2d_backward", "upsample_bicubic2d_backward", "max_unpool2d"),
    *("grid_sampler_2d_backward", "histc", "bincount", "kthvalue", "median", "nll_loss2d_forward", "cumsum", "put"),
)


class Seen(TorchDispatchMode):
    """Names of all executed operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def values(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, ties: bool) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = (x > 0.5).float() if ties else x
    x = x.to(dtype, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return x.detach().requires_grad_()


PAIRS = {
    "2x2": (pooling.MaxPool2d(2), nn.MaxPool2d(2)),
    "3x3 stride 2": (pooling.MaxPool2d(3, 2, padding=1), nn.MaxPool2d(3, 2, padding=1)),
    "5x3 stride 1": (pooling.MaxPool2d((5, 3), 1, (2, 1)), nn.MaxPool2d((5, 3), 1, (2, 1))),
    "ceil": (pooling.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "mean": (pooling.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(1)),
    "grid": (pooling.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d(2)),
    "seven": (pooling.AdaptiveAvgPool2d(7), nn.AdaptiveAvgPool2d(7)),
    "one axis": (pooling.AdaptiveAvgPool2d((None, 2)), nn.AdaptiveAvgPool2d((None, 2))),
    "largest": (pooling.AdaptiveMaxPool2d(1), nn.AdaptiveMaxPool2d(1)),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(2, 2), (7, 7), (8, 8), (9, 6), (14, 14)])
@pytest.mark.parametrize("name", PAIRS)
def test_the_numbers_are_torchs(name: str, size: tuple[int, int], channels_last: bool, ties: bool) -> None:
    ours, theirs = PAIRS[name]
    first = values((3, 4, *size), torch.float32, channels_last, ties)
    second = first.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    expected = theirs(second)
    actual = ours(first)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    exact = {"rtol": 0.0, "atol": 0.0} if name not in ("grid", "seven", "one axis") else {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(actual, expected, **exact)
    torch.testing.assert_close(first.grad, second.grad, **exact)


@pytest.mark.parametrize("name", [name for name in MODELS.names() if name != "timm"])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_have_no_operation_without_a_deterministic_backward(name: str, kind: str) -> None:
    config = config_for(name, kind=kind)
    choices = [{"pool": "avg"}, {"pool": "max"}] if "pool" in type(config.model).model_fields else [{}]
    for options in choices:
        model = build(changed(config, "model", **options))
        check(model, config.dataset.image_size, config.dataset.channels, config.time_steps, kind)


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18d", "test_resnet"])
def test_networks_of_timm_have_none_either(name: str) -> None:
    config = config_for("timm", f"model.name={name}")
    check(build(config), config.dataset.image_size, config.dataset.channels, config.time_steps, "image")


def check(model: nn.Module, size: int, channels: int, time_steps: int, kind: str) -> None:
    shape = (2, channels, size, size) if kind == "image" else (time_steps, 2, channels, size, size)
    with Seen() as seen:
        model(torch.randn(shape)).sum().backward()
    assert seen.names >= {"convolution_backward"}
    assert not seen.names & set(NOT_DETERMINISTIC)
