"""A part of a split, evenly by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradspike.data.augment.counter_random import CounterRandom


def choose_samples(split: NDArray[np.int64], labels: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """At most `limit` samples of `split`, evenly by class, in ascending order; the same on every machine.

    labels: int64 [N], of all samples of the data set. A larger limit includes the samples of a smaller one.
    """
    if limit is None or limit >= len(split):
        return split
    keys = CounterRandom.per_sample(0, 0, split).bits(0)
    rank = np.zeros_like(split)  # of a sample within its class
    for label in np.unique(labels[split]):
        members = np.flatnonzero(labels[split] == label)
        rank[members[np.argsort(keys[members], kind="stable")]] = np.arange(len(members))
    return np.sort(split[np.lexsort((keys, rank))[:limit]])
