"""The fused engine: norm and neuron of a layer as one operation.

It runs on any set of kernels: the `formulas` themselves, or their `compiled` or `triton` versions.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradspike.engine import eager
from gradspike.engine.arrangement import arrangement
from gradspike.engine.base import (
    EngineOptions,
    EngineOutput,
    follows_end,
    has_standard_formulas,
    layer_rules,
    neuron_values,
    new_noise,
    normalised,
    planned,
    recursion_dtype,
)
from gradspike.engine.chunks import ChunkedKernels, even_chunks
from gradspike.engine.fused_layer import FusedLayer, Kernels, LayerCall, LayerKernels
from gradspike.engine.records import Spec
from gradspike.engine.watched import is_watched
from gradspike.methods.base import LayerFacts, Method
from gradspike.neurons.base import Neuron
from gradspike.norms.base import ChannelNorm

log = logging.getLogger(__name__)

MOST_UNROLLED = 10
"""Time steps of one kernel, which unrolls them and compiles longer with each."""

MOST_AT_ONCE = 10
"""Time steps of a kernel of a neuron that charges all of them at once, with T^2 products. A layer of PSN compiles for
15 s of processor time at T = 4, 25 s at T = 8 and 50 s at T = 10."""


@dataclass(frozen=True)
class FusedEngine:
    """An engine (see `gradspike.engine.base.Engine`) built on kernels.

    The reference engine computes rare cases: returning or normalising the potential, normalising one value per channel,
    a width for each neuron, compiling the whole network, counting operations and, with a warning, a neuron that charges
    more than `most_at_once` steps at once.

    Attributes:
        kernels: see `Kernels`.
        most_steps: up to so many steps of the standard neuron go into one kernel.
        most_derived: up to so many steps of other neurons, whose backward pass is derived, and of the standard one that
            has more than `most_steps`. Even more run in `chunks`.
        most_at_once: of steps that a neuron charges at once.
    """

    kernels: Kernels
    most_steps: int = MOST_UNROLLED
    most_derived: int = MOST_UNROLLED
    most_at_once: int = MOST_AT_ONCE

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedEngine:
        """Copied layers share the kernels, which have no state of a layer."""
        return self

    def __call__(
        self,
        x: Tensor,
        neuron: Neuron,
        method: Method,
        facts: LayerFacts,
        options: EngineOptions,
        norm: ChannelNorm | None = None,
    ) -> EngineOutput:
        """Run one layer; see `gradspike.engine.base.Engine`."""
        dtype = recursion_dtype(x.dtype)
        batch_norm = norm is not None and norm.training
        single = batch_norm and x.numel() == x.shape[2]
        measures = method.measures(facts)
        unsplit = measures and (neuron.charges_at_once or neuron.follows_end or method.draws_noise(facts))
        rare = options.keep_membrane or options.potential_norm is not None or single or unsplit or not x.numel()
        rare = rare or method.per_neuron or options.feedback is not None
        if neuron.charges_at_once and facts.time_steps > self.most_at_once:
            _tell_of_many_steps(neuron.config.name, facts.time_steps, self.most_at_once)
            rare = True
        if options.potential_norm is not None and not options.keep_membrane:
            _tell_of_potential_norm()
        if options.feedback is not None and not options.keep_membrane:
            _tell_of_feedback()
        if rare or torch.compiler.is_compiling() or is_watched():
            return eager.run(x, neuron, method, facts, options, norm)
        if norm is not None and not norm.fusible:
            _tell_of_own_forward(type(norm).__name__)
            x, norm, batch_norm = normalised(x, norm, facts), None, False
        standard = has_standard_formulas(neuron, method, facts) and facts.time_steps <= self.most_steps
        split = not standard and not neuron.charges_at_once and facts.time_steps > self.most_derived
        spec = Spec(
            time_steps=facts.time_steps,
            arrangement=arrangement(x),
            norm="none" if norm is None else "batch" if batch_norm else "given",
            eps=0.0 if norm is None else norm.eps,
            surrogate=options.surrogate,
            detach_reset=neuron.config.detach_reset,
            smooth=options.smooth,
            rules=None if standard else layer_rules(neuron, method, options),
            follows_end=follows_end(neuron, facts),
            chunks=even_chunks(facts.time_steps) if split else (),
        )
        kernels: LayerKernels = ChunkedKernels(self.kernels) if split else self.kernels
        gain = bias = None
        if norm is not None:
            gain, bias = norm.gain.to(dtype), norm.bias.to(dtype)
        thresholds, widths = planned(neuron, method, facts)
        noise = new_noise(method, facts)
        call = LayerCall(kernels, spec, neuron, method, facts, norm, noise, options.moments)
        values = neuron_values(neuron, dtype)
        spikes, used_thresholds, used_widths, *moments = FusedLayer.apply(
            x, gain, bias, thresholds, widths, call, *values
        )
        mean, variance = moments if options.moments else (None, None)
        return EngineOutput(
            spikes=spikes,
            thresholds=used_thresholds if thresholds is None else thresholds,
            widths=used_widths if widths is None else widths,
            mean=mean,
            variance=variance,
        )


@functools.cache
def _tell_of_many_steps(neuron: str, time_steps: int, most: int) -> None:
    log.warning(
        "T = %d: neuron '%s' charges all time steps at once, and with more than %d the kernels would compile for "
        "minutes. Layers run on the reference engine, as with engine=eager.",
        time_steps,
        neuron,
        most,
    )


@functools.cache
def _tell_of_potential_norm() -> None:
    log.warning("The norm of the potential has no kernels. Layers run on the reference engine, as with engine=eager.")


@functools.cache
def _tell_of_feedback() -> None:
    log.warning(
        "Layers that feed their spikes back compute one step after the other, on the reference engine, as with "
        "engine=eager."
    )


@functools.cache
def _tell_of_own_forward(norm: str) -> None:
    log.info("Norm %s runs as plain torch before the neuron, whose kernels are fused without it.", norm)
