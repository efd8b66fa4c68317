"""Gradients of several ranks: their memory layout, and an average that depends on nothing but their values."""

# No `from __future__ import annotations`: DistributedDataParallel compares the hook's annotations with classes.
from collections.abc import Iterable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from gradspike import ranks


def averaged_in_order(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """The communication hook of DistributedDataParallel: adds the ranks' gradients in the order of the ranks.

    An all-reduce adds them in an order that depends on their place in the bucket. DistributedDataParallel arranges its
    buckets again after the first step, so the first step of a resumed run of three or more ranks would round otherwise
    than the same step of an uninterrupted run.
    """
    rows = ranks.gathered(bucket.buffer())
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    averaged: torch.futures.Future[Tensor] = torch.futures.Future()
    averaged.set_result(total / len(rows))
    return averaged


def lay_out_like_weights(parameters: Iterable[Tensor]) -> None:
    """Give the gradients of these parameters the strides that the parameters have.

    Memory format does not determine the stride of an axis of size 1, such as those of a 1x1 convolution, and cuDNN
    chooses another one than `to(memory_format=...)`. DistributedDataParallel compares strides, and warns of a slower
    copy although the memory is the same.
    """
    for parameter in parameters:
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_hook(partial(_with_strides, parameter.stride()))  # type: ignore[no-untyped-call]


def _with_strides(strides: tuple[int, ...], gradient: Tensor) -> Tensor:
    """The same values in the same memory; unchanged if memory differs, not only the strides of axes of size 1."""
    axes = zip(gradient.shape, gradient.stride(), strides, strict=True)
    if all(size == 1 or own == other for size, own, other in axes):
        return gradient.as_strided(gradient.shape, strides)
    return gradient
