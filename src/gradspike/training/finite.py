"""Finds NaN and infinite values. A spiking network hides them: u >= theta is false for NaN, so the loss is finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from typing_extensions import override

from gradspike.collected import FirstLayerWatch
from gradspike.shown import counted, listed

NONE = 2**63 - 1


class FiniteSamples(Metric):
    """Counts samples that are not finite, and finite samples for which the first spiking layer's input is not.

    `own` and `results` return three counts on the device, int64 [3]: non-finite samples, finite samples with a
    non-finite input to the first layer, and the lowest index of a sample of either kind.
    """

    inputs: Tensor
    currents: Tensor
    first: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("inputs", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("currents", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("first", torch.tensor(NONE), dist_reduce_fx="min")

    def update(self, finite: Tensor, index: Tensor, watch: FirstLayerWatch) -> None:
        """Count a batch. finite: the result of `finite_samples` [B]; index: the samples' positions in the data [B]."""
        good = finite if watch.sums is None else finite & watch.sums.isfinite()
        self.inputs += (~finite).sum()
        self.currents += (finite & ~good).sum()
        self.first = torch.minimum(self.first, torch.where(good, NONE, index).min())

    @override
    def compute(self) -> Tensor:
        return self.own()

    def results(self) -> Tensor:
        """The counts of all ranks; resets them."""
        with self.sync_context():  # compute() would warn about a split without a batch
            counts = self.own()
        self.reset()
        return counts

    def own(self) -> Tensor:
        """The counts of this rank only. Not a collective, so one rank can call it alone."""
        return torch.stack([self.inputs, self.currents, self.first])


def finite_samples(inputs: Tensor) -> Tensor:
    """Whether all values of each sample are finite, [B]. inputs: images [B, C, H, W] or frames [T, B, C, H, W]."""
    batch_axis = inputs.ndim - 4
    # x - x is 0 or, if x is not finite, NaN. On a CPU this takes half the time of isfinite.
    return (inputs - inputs).sum([axis for axis in range(inputs.ndim) if axis != batch_axis]) == 0


def bad_inputs(counts: Tensor, split: str) -> str | None:
    """A message about samples that are not finite; None if all are finite. Waits for the device."""
    number, _, first = counts.tolist()
    if not number:
        return None
    return (
        f"{counted(number, 'sample')} of the {split} split contain{'s' * (number == 1)} NaN or infinite values "
        f"(first: sample {first})"
    )


def bad_network(counts: Tensor, split: str, model: nn.Module) -> str | None:
    """A message about weights that are not finite, or finite samples that the first layers turn infinite; else None.

    Waits for the device.
    """
    problem = bad_weights(model)
    if problem:
        return problem
    _, number, first = counts.tolist()
    if number:
        return (
            f"The first spiking layer receives values that are NaN, infinite or too large for float32 from "
            f"{counted(number, 'sample')} of the {split} split (first: sample {first})"
        )
    return None


def bad_weights(model: nn.Module) -> str | None:
    """A sentence on weights, thresholds or statistics that are not finite; None if all are. Waits for the device."""
    tensors = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
    bad = [name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite]
    if not bad:
        return None
    return f"The network contains NaN or infinite values in {listed(bad, 3)}"
