"""What torch refuses in a training step of a network on CUDA, found before training: operations that are not
deterministic with `trainer.deterministic=true`, and reads of the host with `trainer.cuda_graphs=true`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from gradspike.collected import collect_losses

NOT_DETERMINISTIC = {
    "_adaptive_avg_pool2d_backward": "adaptive average pooling",
    "_adaptive_avg_pool3d_backward": "adaptive average pooling of volumes",
    "_ctc_loss_backward": "CTC loss",
    "_upsample_bicubic2d_aa_backward": "bicubic interpolation",
    "_upsample_bilinear2d_aa_backward": "bilinear interpolation with antialiasing",
    "adaptive_max_pool2d_backward": "adaptive max pooling",
    "avg_pool3d_backward": "average pooling of volumes",
    "fractional_max_pool2d_backward": "fractional max pooling",
    "fractional_max_pool3d_backward": "fractional max pooling of volumes",
    "grid_sampler_2d_backward": "grid sampling",
    "grid_sampler_3d_backward": "grid sampling of volumes",
    "histc": "histogram",
    "max_pool3d_with_indices_backward": "max pooling of volumes",
    "max_unpool2d": "max unpooling",
    "max_unpool3d": "max unpooling of volumes",
    "median.dim": "median along an axis",
    "nll_loss2d_forward": "cross entropy of images",
    "put": "take or put by flat indices",
    "reflection_pad1d_backward": "reflection padding of sequences",
    "reflection_pad3d_backward": "reflection padding of volumes",
    "upsample_bicubic2d_backward": "bicubic interpolation",
    "upsample_bilinear2d_backward": "bilinear interpolation",
    "upsample_linear1d_backward": "linear interpolation of sequences",
    "upsample_trilinear3d_backward": "trilinear interpolation",
}
"""Operations of torch, with the overload where only one is meant, and where they come from.

From the documentation of `torch.use_deterministic_algorithms` and from what torch 2.14 refuses in fact. In that mode
torch replaces bilinear `interpolate` and replication padding by deterministic operations.
"""


READ_BY_THE_HOST = frozenset(
    ("_local_scalar_dense", "_unique2", "equal", "masked_select", "nonzero", "unique_consecutive", "unique_dim")
)
"""Operations whose result depends on values that the host has to read."""


def nondeterministic_operations(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """The operations of `NOT_DETERMINISTIC` in a training step on inputs of this shape, sorted."""
    return sorted(_operations_of_a_step(model, shape) & set(NOT_DETERMINISTIC))


def host_takes_part(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether the host reads a tensor in a training step on inputs of this shape; a seed that it draws is one too."""
    return not READ_BY_THE_HOST.isdisjoint(_operations_of_a_step(model, shape))


def _operations_of_a_step(model: nn.Module, shape: tuple[int, ...]) -> set[str]:
    """Runs a copy of the model on tensors without values, in milliseconds; on a CPU if the model needs values."""
    try:
        return _operations(model, torch.empty(shape, device="meta"))
    except (RuntimeError, NotImplementedError):  # a random generator, a branch on a value
        return _operations(model, torch.zeros(shape))


def _operations(model: nn.Module, inputs: Tensor) -> set[str]:
    copied = copy.deepcopy(model).to(inputs.device).train()
    with torch.random.fork_rng(devices=[]), _deterministic(), _Seen() as seen, collect_losses() as extra:
        (copied(inputs).sum() + extra.mean()).backward()
    names: set[str] = seen.names
    return names


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The names of all operations that run, with and without their overload."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.names |= {name, f"{name}.{func._overloadname}"}
        return func(*args, **(kwargs or {}))


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic mode, in which torch replaces some operations."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
