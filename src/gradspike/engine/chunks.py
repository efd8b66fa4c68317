"""Many time steps in chunks of a few. The kernels of one chunk serve all, so they compile equally fast for any T.

The forward pass keeps the neuron's state before each chunk but the first; the backward pass takes the chunks in
reverse, from the gradient of the state after each. A chunk treats the norm's statistics as constants, since their
gradient needs sums over all chunks; one more pass over the gradient of the input adds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from gradspike.engine import steps
from gradspike.engine.noise import seed_at
from gradspike.engine.norm_formulas import current_at, inverse_std, norm_backward, sum_of
from gradspike.engine.records import Affine, Arriving, Fired, Gradients, Inputs, Part, Spec, Step, Wanted
from gradspike.engine.steps import Rules
from gradspike.neurons.base import State
from gradspike.norms.synced import statistics_terms


class StepKernels(Protocol):
    """A module or an object with these functions of `formulas`, documented there."""

    @property
    def batch_statistics(self) -> Callable[[Tensor, torch.dtype, Spec], tuple[Tensor, Tensor]]:
        """Mean and variance of each channel."""

    @property
    def advance(
        self,
    ) -> Callable[[Tensor, Step | None, Affine, tuple[Tensor, ...], Spec], tuple[Tensor, Tensor, Tensor, State]]:
        """One step."""

    @property
    def finish(self) -> Callable[[Step, Spec], None]:
        """Fire the last step."""


class PartKernels(StepKernels, Protocol):
    """Those that compute chunks."""

    @property
    def forward_part(
        self,
    ) -> Callable[[Inputs, Tensor | None, Part, Spec], tuple[State, Tensor | None, Tensor | None]]:
        """One chunk."""

    @property
    def backward_part(self) -> Callable[[Inputs, Arriving, Part, Spec, Wanted], tuple[Gradients, State]]:
        """The gradients of one chunk."""

    @property
    def add_through_statistics(self) -> Callable[[Tensor, Tensor, Tensor, Tensor, Spec], None]:
        """Complete the gradient of y."""


SIZES = (6, 5, 4)
"""Allowed sizes of a chunk. A larger one takes longer to compile, a smaller one keeps more states and costs more time:
at T = 16, four chunks of 4 compile in 1.3 times, and two of 8 in 1.7 times, the processor time of T = 4."""


def even_chunks(time_steps: int) -> tuple[int, ...]:
    """Chunks of one size, as nearly as possible, because each size compiles kernels: 16 = 4 + 4 + 4 + 4."""
    size = min(SIZES, key=lambda size: time_steps % size)
    rest = time_steps % size
    return (size,) * (time_steps // size) + (rest,) * (rest > 0)


@dataclass(frozen=True)
class ChunkedKernels:
    """The kernels of `fused_layer.LayerKernels` for a spec with `chunks`, from those of one chunk."""

    kernels: PartKernels

    def batch_statistics(self, y: Tensor, dtype: torch.dtype, spec: Spec) -> tuple[Tensor, Tensor]:
        """See `formulas.batch_statistics`. All steps count as one, of T times the batch."""
        return self.kernels.batch_statistics(y.flatten(0, 1).unsqueeze(0), dtype, _spec_of(spec, 1))

    def forward(self, inputs: Inputs, shifts: Tensor | None, spec: Spec) -> Fired:
        """See `formulas.forward`."""
        y, affine, rules = inputs.y, inputs.affine, _rules(spec)
        batch_mean = batch_variance = None
        if spec.norm == "batch" and affine.mean is None:
            batch_mean, batch_variance = self.batch_statistics(y, inputs.thresholds.dtype, spec)
            affine = affine._replace(mean=batch_mean, inverse=inverse_std(batch_variance, spec))
            inputs = inputs._replace(affine=affine)
        spikes = y.new_empty(spec.time_steps, *y.shape[1:])
        state = _start(inputs, spec)
        states: list[State] = []
        moments: list[tuple[Tensor | None, Tensor | None]] = []
        for place in _places(spec):
            states.append(state)
            part = Part(state, spikes[place].unbind(0))
            shift = None if shifts is None else shifts[place]
            size = place.stop - place.start
            state, mean, variance = self.kernels.forward_part(
                _inputs_of(inputs, place, rules), shift, part, _spec_of(spec, size)
            )
            moments.append((mean, variance))
        u_mean, u_variance = (_joined(values) for values in zip(*moments, strict=True))
        end = steps.end_of_fired(spikes.unbind(0), state) if spec.follows_end else None
        return Fired(spikes, batch_mean, batch_variance, u_mean, u_variance, end, tuple(states[1:]))

    def advance(
        self, y: Tensor, previous: Step | None, affine: Affine, values: tuple[Tensor, ...], spec: Spec
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """See `formulas.advance`, whose kernels differ only between steps with and without a previous one."""
        return self.kernels.advance(y, previous, affine, values, _spec_of(spec, spec.chunks[0]))

    def finish(self, last: Step, spec: Spec) -> None:
        """See `formulas.finish`."""
        self.kernels.finish(last, _spec_of(spec, spec.chunks[0]))

    def backward(self, inputs: Inputs, arriving: Arriving, spec: Spec, wanted: Wanted) -> Gradients:
        """See `formulas.backward`."""
        y, batch = inputs.y, spec.norm == "batch"
        rules = _rules(spec)
        still = y.shape[0] == 1
        given = replace(spec, norm="given") if batch else spec
        wanted = wanted._replace(affine=wanted.affine or batch)
        grad_y = torch.empty_like(y)
        of_still: list[Tensor] = []
        states = (_start(inputs, spec), *inputs.states)
        after = tuple(torch.zeros_like(part) for part in states[0])
        found: list[Gradients] = []
        for place, state in reversed(list(zip(_places(spec), states, strict=True))):
            if still:
                of_still.append(torch.empty_like(y[0], dtype=inputs.thresholds.dtype))
            part = Part(state, tuple(of_still[-1:]) if still else grad_y[place].unbind(0), after)
            arguments = _inputs_of(inputs, place, rules), _arriving_of(arriving, place), part
            gradients, after = self.kernels.backward_part(*arguments, _spec_of(given, place.stop - place.start), wanted)
            found.insert(0, gradients)
        if still:
            grad_y[0] = sum_of(of_still)
        total = _total(found, grad_y, rules)
        total = _through_start(total, after, inputs, given, wanted)
        return self._through_statistics(total, inputs, spec) if batch else total

    def _through_statistics(self, gradients: Gradients, inputs: Inputs, spec: Spec) -> Gradients:
        assert gradients.y is not None
        slope, offset = statistics_gradient(gradients, inputs.affine, spec.count(inputs.y))
        of_y, y = (values.flatten(0, 1).unsqueeze(0) for values in (gradients.y, inputs.y))
        self.kernels.add_through_statistics(of_y, y, slope, offset, _spec_of(spec, 1))
        return gradients


def statistics_gradient(gradients: Gradients, affine: Affine, count: int) -> tuple[Tensor, Tensor]:
    """Terms [C] that complete a gradient of y; see `norms.synced.statistics_terms`."""
    assert gradients.gain is not None
    assert gradients.bias is not None
    assert affine.gain is not None
    assert affine.mean is not None
    assert affine.inverse is not None
    return statistics_terms(gradients.gain, gradients.bias, affine.gain, affine.mean, affine.inverse, count)


def _rules(spec: Spec) -> Rules:
    assert spec.rules is not None
    return spec.rules


def _spec_of(spec: Spec, size: int) -> Spec:
    return replace(spec, time_steps=size, chunks=(), follows_end=False)


def _places(spec: Spec) -> Iterator[slice]:
    """The steps of each chunk."""
    first = 0
    for size in spec.chunks:
        yield slice(first, first + size)
        first += size


def _inputs_of(inputs: Inputs, place: slice, rules: Rules) -> Inputs:
    axes = rules.neuron.axes.values()
    return inputs._replace(
        y=inputs.y if inputs.y.shape[0] == 1 else inputs.y[place],
        thresholds=inputs.thresholds[place],
        widths=inputs.widths[place],
        values=tuple(
            value[place] if of in ("T", "TC") else value for value, of in zip(inputs.values, axes, strict=True)
        ),
        noise=None if inputs.noise is None else inputs.noise._replace(seed=seed_at(inputs.noise.seed, place.start)),
        states=(),
    )


def _arriving_of(arriving: Arriving, place: slice) -> Arriving:
    return Arriving(*(None if value is None else value[place] for value in arriving))  # type: ignore[arg-type]


def _start(inputs: Inputs, spec: Spec) -> State:
    """The state before the first step."""
    rules = _rules(spec)
    values = steps.pick(inputs.values, 0, rules)
    return tuple(part.contiguous() for part in steps.start(_first_current(inputs, spec), values, rules, spec.spread))


def _first_current(inputs: Inputs, spec: Spec) -> Tensor:
    return current_at(inputs.y, 0, inputs.affine, inputs.thresholds.dtype, spec)


def _total(parts: list[Gradients], grad_y: Tensor, rules: Rules) -> Gradients:
    """The gradients of all chunks: values of single steps side by side, others summed."""
    values = zip(*(part.values for part in parts), strict=True)
    return Gradients(
        grad_y,
        _sum([part.gain for part in parts]),
        _sum([part.bias for part in parts]),
        _joined([part.thresholds for part in parts]),
        _joined([part.widths for part in parts]),
        tuple(
            (_joined if axes in ("T", "TC") else _sum)(list(each))
            for axes, each in zip(rules.neuron.axes.values(), values, strict=True)
        ),
    )


def _through_start(gradients: Gradients, of_start: State, inputs: Inputs, spec: Spec, wanted: Wanted) -> Gradients:
    """`gradients`, with those through the state before the first step added."""
    with torch.enable_grad():
        x = _first_current(inputs, spec).detach().requires_grad_()
        values = tuple(v.detach().requires_grad_(wants) for v, wants in zip(inputs.values, wanted.values, strict=True))
        rules = _rules(spec)
        state = steps.start(x, steps.pick(values, 0, rules), rules, spec.spread)
    reached = [(part, of_part) for part, of_part in zip(state, of_start, strict=True) if part.requires_grad]
    if not reached:
        return gradients
    learned = [value for value in values if value.requires_grad]
    outputs, arriving = zip(*reached, strict=True)
    of_x, *of_learned = torch.autograd.grad(outputs, [x, *learned], arriving, allow_unused=True)
    left = iter(of_learned)
    more = [next(left) if value.requires_grad else None for value in values]
    gradients = gradients._replace(values=tuple(_sum([*pair]) for pair in zip(gradients.values, more, strict=True)))
    if of_x is None or gradients.y is None:
        return gradients
    (of_y,), gain, bias = norm_backward([of_x], inputs.y[:1], inputs.affine, spec, wanted.affine)
    gradients.y[0] += of_y
    return gradients._replace(gain=_sum([gradients.gain, gain]), bias=_sum([gradients.bias, bias]))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return sum_of(present) if present else None
