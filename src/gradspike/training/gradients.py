"""Gradients averaged over ranks so that the result depends on nothing but their gradients."""

# No `from __future__ import annotations`: DistributedDataParallel compares the hook's annotations with classes.
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
