"""A network on input that arrives step by step, with its state in the caller's hands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradspike.engine.streamed import StreamPass, check_streamable, streaming
from gradspike.errors import ConfigError, UserError
from gradspike.models.encoder import encoder_of
from gradspike.models.spiking_layers import name_layers
from gradspike.neurons.base import State
from gradspike.spiking_norm import ActivationLayer, SpikingNorm


@dataclass(frozen=True)
class StreamState:
    """What a stream carries from one step to the next.

    Attributes:
        steps: how many steps have been computed.
        layers: the neurons' states by layer, each a tuple of tensors [B, C, *space].
    """

    steps: int
    layers: dict[str, State]

    def to(self, device: torch.device | str) -> StreamState:
        """The same state on another device."""
        return StreamState(
            self.steps, {name: tuple(value.to(device) for value in state) for name, state in self.layers.items()}
        )


class Stream:
    """Computes one time step of a network in evaluation.

    stream, state = Stream(model), None
    for frame in frames:                         # [B, C, H, W]
        logits, state = stream(frame, state)     # [B, K]

    The network keeps nothing between calls, so several streams can share it. Step by step, it computes what the
    reference engine computes for the whole sequence. It may continue beyond the T steps of its training unless the
    norm, the neuron or the method's thresholds differ between steps.

    exact: on a CPU, compute a single sample as two, because matrix products round a single row differently. Without it,
    a single sample takes half the time, and its logits differ from those of the whole sequence in rounding.

    Raises ConfigError for a network that cannot be streamed: neurons that compute all steps at once, or an encoder that
    spreads one image over all steps.
    """

    def __init__(self, model: nn.Module, *, exact: bool = True) -> None:
        layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, ActivationLayer)]
        if not layers:
            raise ConfigError("The network has no layers of gradspike, so there is nothing to stream.")
        for name, layer in layers:
            if isinstance(layer, SpikingNorm):
                check_streamable(name, layer.neuron)
        for module in model.modules():
            if (encoder := encoder_of(module)) is not None:
                raise ConfigError(
                    f"model.encoder={encoder} spreads one image over all time steps, so the network cannot be streamed."
                )
        name_layers(model)
        self.model = model
        self.exact = exact

    @torch.no_grad()
    def __call__(self, x: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """What the network returns for the input x of one step, without the axis of time, and the state after it.

        x: what the network takes, at one time step: [B, C, H, W] for our backbones. state: None at the first step.
        Raises UserError in training mode, whose statistics cover all steps; ValueError if the state does not fit.
        """
        if self.model.training:
            raise UserError("A stream computes a network in evaluation. Call model.eval() first.")
        done, before = (0, {}) if state is None else (state.steps, state.layers)
        copies = 2 if self.exact and len(x) == 1 and x.device.type == "cpu" else 1
        with streaming(StreamPass(done, _repeated(before, copies), copies)) as step:
            output: Tensor = self.model(torch.cat([x] * copies) if copies > 1 else x)
        if output.shape[0] != 1:
            raise ValueError(
                f"The network returned {list(output.shape)} for one time step; expected [1, B, ...]. Use "
                "gradspike.unfold_time to separate time and batch."
            )
        after = {name: tuple(_first(value, copies) for value in state) for name, state in step.after.items()}
        return _first(output[0], copies), StreamState(done + 1, after)


def _repeated(layers: dict[str, State], copies: int) -> dict[str, State]:
    if copies == 1:
        return layers
    return {name: tuple(torch.cat([value] * copies) for value in state) for name, state in layers.items()}


def _first(value: Tensor, copies: int) -> Tensor:
    """The first of `copies` equal parts along the batch."""
    return value[: len(value) // copies]
