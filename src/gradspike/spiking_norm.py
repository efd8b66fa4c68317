"""SpikingNorm: norm, neuron and method in one module, the unit a backbone places after a conv or linear layer.

Networks that normalise elsewhere, or not at all, use layers without a norm. In a layer, the norm makes the current, the
method sets threshold theta and surrogate width kappa, the neuron charges and fires, and the engine runs all of it over
the time steps.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradspike import ranks
from gradspike.collected import FIRST_LAYER, LOSSES
from gradspike.engine.base import Engine, EngineOptions, EngineOutput, normalised, recursion_dtype
from gradspike.engine.registry import load_engine
from gradspike.engine.streamed import StreamPass, current_pass
from gradspike.methods.base import LayerFacts, build_method
from gradspike.methods.options import MethodConfig
from gradspike.neurons.base import build_neuron
from gradspike.neurons.feedback import Feedback
from gradspike.neurons.options import NeuronConfig
from gradspike.norms.base import ChannelNorm, build_norm, build_potential_norm
from gradspike.norms.options import NormConfig
from gradspike.packed_spikes import mark

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class LayerContext:
    """Everything a backbone needs to place its activation layers.

    Backbones call `layer`, or `channel_norm` and `neuron_layer` if something stands between norm and neuron.
    """

    time_steps: int
    neuron: NeuronConfig
    method: MethodConfig
    norm: NormConfig
    engine: str = "eager"
    activation: Literal["spike", "relu"] = "spike"

    def layer(self, channels: int, bias: float = 0.0, recurrent: bool = False) -> SpikingNorm | NormReLU:
        """A new layer for `channels` channels, with its own norm, neuron and method. `bias` shifts the initial mean of
        the current, in units of V_th (of 1 in the ANN twin). `recurrent`: the layer's output reaches its own currents
        one step later, through weights of its own (`Feedback`).
        """
        layer = self._layer(channels, norm=True, recurrent=recurrent)
        assert layer.norm is not None
        with torch.no_grad():
            layer.norm.bias.add_(bias * (1.0 if self.activation == "relu" else self.method.v_threshold))
        return layer

    def neuron_layer(self, channels: int, threshold: float = 1.0) -> SpikingNorm | NormReLU:
        """A new layer without a norm, for currents that are normalised elsewhere or not at all; gamma_mean is 1.

        threshold: the layer's base threshold, in units of V_th.
        """
        if threshold == 1:
            return self._layer(channels, norm=False)
        v_threshold = threshold * self.method.v_threshold
        method = self.method.model_copy(update={"v_threshold": v_threshold})
        return replace(self, method=method)._layer(channels, norm=False)

    def channel_norm(self, channels: int, branches: int = 1) -> ChannelNorm:
        """A new norm without a neuron, of the same kind as in `layer`.

        branches: how many such currents are summed before a neuron. Each starts with 1 / sqrt(branches) of the usual
        standard deviation (Zheng et al., AAAI 2021), except in the ANN twin, whose norms are plain.
        """
        if self.activation == "relu":
            return ChannelNorm(self.norm, channels)
        return build_norm(self.norm, channels, self.method.v_threshold, branches, self.time_steps)

    def _layer(self, channels: int, norm: bool, recurrent: bool = False) -> SpikingNorm | NormReLU:
        kind = NormReLU if self.activation == "relu" else SpikingNorm
        return kind(channels, self, norm=norm, recurrent=recurrent)


@dataclass(frozen=True)
class LayerTrace:
    """The inside of one layer's pass: u and spikes [T, B, C, ...], thresholds and widths [T], [T, C] or [T, C, ...].

    u is the potential that meets the threshold, so after the norm of the potential, if there is one. `own` are scalars
    that the method names (`Method.quantities`), and `current_mean` if it has a loss on the current.
    """

    u: Tensor
    spikes: Tensor
    thresholds: Tensor
    widths: Tensor
    own: Mapping[str, Tensor] = field(default_factory=dict)


class ActivationLayer(nn.Module):
    """A layer of `LayerContext`: a norm, if there is one, and an activation over T steps; one layer for all tools."""

    norm: ChannelNorm | None
    feedback: Feedback | None

    def __init__(self, channels: int, context: LayerContext, norm: bool, recurrent: bool) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        self.norm = context.channel_norm(channels) if norm else None
        scale = 1.0 if context.activation == "relu" else context.method.v_threshold
        self.feedback = Feedback(channels, scale) if recurrent else None


class SpikingNorm(ActivationLayer):
    """Norm, then the neuron over T steps with its method's thresholds and widths; returns spikes.

    Time is folded into the batch, time-major: index t * B + b. Without `norm` the input is the current. With
    `recurrent`, the current of a step is the norm's result plus `feedback` of the spikes of the step before.
    """

    def __init__(self, channels: int, context: LayerContext, norm: bool = True, recurrent: bool = False) -> None:
        super().__init__(channels, context, norm, recurrent)
        self.channels = channels
        self.v_threshold = context.method.v_threshold
        self.potential_norm = build_potential_norm(context.norm, channels)
        self.neuron = build_neuron(context.neuron, context.time_steps, channels, self.v_threshold)
        self.method = build_method(context.method, context.time_steps, channels)
        self.surrogate = self.method.shape
        self.use_engine(context.engine)

    def use_engine(self, engine: str | Engine) -> None:
        """Compute the layer with this engine, or with the one of this name in `engine.registry.ENGINES`."""
        self._run = load_engine(engine) if isinstance(engine, str) else engine

    @property
    def layer_name(self) -> str:
        """The layer's name in its model, for errors; "" until `name_layers` has set it."""
        return self.method.layer_name

    @layer_name.setter
    def layer_name(self, name: str) -> None:
        self.method.layer_name = name

    def forward(self, y: Tensor, static: bool = False) -> Tensor:
        """Spikes [T*B, C, *space] in the dtype and memory format of y.

        Args:
            y: output of a conv or linear layer (without a norm: the current itself), [T*B, C, *space]; [B, C, *space]
                if `static`.
            static: the input is the same at every step. It is normalised once and its current fed T times; the
                numbers are those of T copies.

        In a pass over one step (`engine.streamed`), y and the spikes are those of that step, [B, C, *space].
        """
        if (step := current_pass()) is not None:
            return self._advance(y, step)
        collector = LOSSES.get()
        collects = collector is not None and self.training
        facts = self.facts(y, gradients=torch.is_grad_enabled())
        steps, norm = self._steps(y, static), self.norm
        of_current = collects and self.method.has_current_loss
        if of_current and norm is not None:
            steps, norm = normalised(steps, norm, facts), None
        output = self._fire(steps, facts, norm, moments=collects and self.method.has_membrane_loss)
        if of_current and collector is not None:
            collector.losses.append(self.method.current_loss(facts, self._mean(steps, output.fed_back)))
        watch = FIRST_LAYER.get()
        if watch is not None:
            watch.see(y, steps=1 if static else self.time_steps)
        if collector is not None and output.mean is not None and output.variance is not None:
            mean, variance = output.mean, output.variance
            if self.method.sync_stats and ranks.world_size() > 1:
                mean, variance = ranks.pooled_moments(mean, variance)
            collector.losses.append(self.method.membrane_loss(facts, mean, variance))
        emits_binary = self.neuron.is_binary and not self.method.scales_spikes and not self.method.draws_noise(facts)
        return (mark(output.spikes) if emits_binary else output.spikes).flatten(0, 1)

    @torch.no_grad()
    def inspect(self, y: Tensor, static: bool = False) -> LayerTrace:
        """Trace what `forward(y, static)` would do in the layer's current mode. Changes no buffer."""
        facts = self.facts(y, gradients=True, updates=False)
        steps, norm, own = self._steps(y, static), self.norm, self.method.quantities()
        if self.method.has_current_loss and norm is not None:
            steps, norm = normalised(steps, norm, facts), None
        output = self._fire(steps, facts, norm, keep_membrane=True)
        assert output.membrane is not None
        if self.method.has_current_loss:
            mean = steps.mean(dtype=facts.dtype)  # this rank's: the probe may measure on some ranks only
            own["current_mean"] = mean if output.fed_back is None else mean + output.fed_back
        spikes = output.spikes
        if self.method.scales_spikes:
            spikes = (spikes != 0).to(spikes.dtype)
        widths = output.widths if self.surrogate.width is None else self.surrogate.width(output.widths)
        return LayerTrace(output.membrane, spikes, output.thresholds, widths, own)

    def facts(self, y: Tensor, *, gradients: bool, updates: bool = True) -> LayerFacts:
        """What the method may know about a pass. Only the dtype of y matters."""
        dtype = recursion_dtype(y.dtype)
        last = self.norm if self.potential_norm is None else self.potential_norm
        decay = self.neuron.decay
        return LayerFacts(
            time_steps=self.time_steps,
            v_threshold=self.v_threshold,
            scalar=torch.zeros((), dtype=dtype, device=y.device) if decay is None else decay.detach().to(dtype),
            gamma_mean=None if last is None else functools.partial(last.mean_gain, dtype),
            training=self.training,
            gradients=gradients,
            updates=updates,
            without_decay=self.neuron.config.name if decay is None else "",
        )

    def facts_when_built(self) -> LayerFacts:
        """Facts to check a method with, before there is an input."""
        return self.facts(next(iter(self.neuron.values().values())), gradients=True, updates=False)

    def _advance(self, y: Tensor, step: StreamPass) -> Tensor:
        self._check_channels(y)
        facts = self.facts(y, gradients=False, updates=False)
        options = EngineOptions(self.surrogate, potential_norm=self.potential_norm, feedback=self.feedback)
        return step.advance(self.layer_name, y, self.neuron, self.method, facts, options, self.norm)

    def _check_channels(self, y: Tensor) -> None:
        if y.ndim < 2 or y.shape[1] != self.channels:
            raise ValueError(f"layer '{self.layer_name}': expected [*, {self.channels}, ...], got {list(y.shape)}.")

    def _steps(self, y: Tensor, static: bool) -> Tensor:
        """The layer's input as [T, B, C, *space]; [1, B, C, *space] if `static`."""
        self._check_channels(y)
        if not static and y.shape[0] % self.time_steps:
            raise ValueError(
                f"layer '{self.layer_name}': {len(y)} inputs are not a multiple of T = {self.time_steps} time steps."
            )
        return y.unsqueeze(0) if static else torch.unflatten(y, 0, (self.time_steps, -1))

    def _mean(self, current: Tensor, fed_back: Tensor | None) -> Tensor:
        """The mean of the current over all elements and steps, and over all ranks if the method's statistics are.

        fed_back: the mean of what the feedback adds to it.
        """
        mean = current.mean(dtype=recursion_dtype(current.dtype))
        mean = mean if fed_back is None else mean + fed_back
        if self.method.sync_stats and ranks.world_size() > 1:
            mean = ranks.pooled_moments(mean, torch.zeros_like(mean))[0]
        return mean

    def _fire(
        self,
        steps: Tensor,
        facts: LayerFacts,
        norm: ChannelNorm | None,
        *,
        moments: bool = False,
        keep_membrane: bool = False,
    ) -> EngineOutput:
        options = EngineOptions(
            self.surrogate,
            moments=moments,
            keep_membrane=keep_membrane,
            potential_norm=self.potential_norm,
            feedback=self.feedback,
        )
        return self._run(steps, self.neuron, self.method, facts, options, norm)


class NormReLU(ActivationLayer):
    """Plain batch norm (none without `norm`) and ReLU: the ANN twin's layer, with the same folded time."""

    layer_name = ""

    def __init__(self, channels: int, context: LayerContext, norm: bool = True, recurrent: bool = False) -> None:
        super().__init__(channels, context, norm, recurrent)

    def forward(self, y: Tensor, static: bool = False) -> Tensor:
        """y [T*B, C, *space], or [B, C, *space] if `static`; always gives [T*B, C, *space]."""
        if self.norm is not None:
            y = self.norm(y, repeats=self.time_steps if static else 1)
        if self.feedback is not None:
            return self._step_by_step(y, static, self.feedback)
        activation = F.relu(y)
        return repeat_in_time(activation, self.time_steps) if static else activation

    def _step_by_step(self, current: Tensor, static: bool, feedback: Feedback) -> Tensor:
        """The activations [T*B, ...] with feedback; of one step, [B, ...], in a pass over one."""
        if (step := current_pass()) is not None:
            before = step.recall(self.layer_name, current)
            activation = F.relu(current if before is None else current + feedback(*before))
            step.keep(self.layer_name, (activation,))
            return activation
        steps = [current] * self.time_steps if static else torch.unflatten(current, 0, (self.time_steps, -1)).unbind()
        activations = [F.relu(steps[0])]
        for one in steps[1:]:
            activations.append(F.relu(one + feedback(activations[-1])))
        return torch.cat(activations)


def repeat_in_time(x: Tensor, time_steps: int) -> Tensor:
    """T copies of x [B, ...] as [T*B, ...], in the memory format of x, which Tensor.repeat does not keep."""
    return torch.cat([x] * steps_of_pass(time_steps))


def steps_of_pass(time_steps: int) -> int:
    """How many time steps the forward pass that is under way computes: `time_steps`, or 1 in a stream."""
    return time_steps if current_pass() is None else 1
