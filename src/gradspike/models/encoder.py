"""How a still picture enters a backbone as spikes: rate (poisson) or time of the only spike (latency)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradspike.engine.base import empty_steps

EVALUATION_SEED = 0


def poisson(images: Tensor, time_steps: int, training: bool) -> Tensor:
    """Spikes [T, B, C, H, W] of pictures [B, C, H, W] of 0 to 1: at each step a pixel spikes with its value as
    probability, whatever it did before (Heeger 2000).

    In training the random numbers are new in each call and follow from torch's generator of the CPU, whose state a
    checkpoint holds. In evaluation they are the same in each call, for each sample, on each device: a sample's spikes
    depend neither on its batch nor on what was evaluated before.
    """
    spikes = empty_steps(images.expand(time_steps, *images.shape))
    if training:
        seed = int(torch.randint(2**63 - 1, ()))
        noise = torch.empty_like(spikes).uniform_(generator=torch.Generator(images.device).manual_seed(seed))
    else:
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        noise = torch.rand(time_steps, 1, *images.shape[1:], generator=generator, dtype=images.dtype).to(images.device)
    return spikes.copy_(noise < images)


def latency(images: Tensor, time_steps: int, training: bool = False) -> Tensor:
    """Spikes [T, B, C, H, W] of pictures [B, C, H, W] of 0 to 1: each pixel spikes once, the brighter the earlier.

    The values from 0 to 1 are cut into T equal parts, the brightest of which spikes at the first step. A pixel of 0
    never spikes.
    """
    steps = torch.arange(time_steps, device=images.device).view(-1, *[1] * images.ndim)
    when = ((1 - images) * time_steps).floor().clamp(0, time_steps - 1)
    return empty_steps(images.expand(time_steps, *images.shape)).copy_((steps == when) & (images > 0))


ENCODERS: dict[str, Callable[[Tensor, int, bool], Tensor]] = {"poisson": poisson, "latency": latency}


def encode_inputs(model: nn.Module, encoder: str, time_steps: int) -> None:
    """Let a backbone that is fed pictures [B, C, H, W] see their spikes [T, B, C, H, W] instead.

    A hook rather than a module around the backbone, so that no parameter has another name with an encoder.
    """
    if encoder != "direct":
        model.register_forward_pre_hook(_EncoderHook(encoder, time_steps))


class _EncoderHook:
    """An object rather than a closure, since models are copied and pickled."""

    def __init__(self, encoder: str, time_steps: int) -> None:
        self.encoder = encoder
        self.time_steps = time_steps

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, model: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        (images,) = inputs
        if images.ndim != 4:
            raise ValueError(f"model.encoder={self.encoder} is for pictures [B, C, H, W], got {list(images.shape)}.")
        with torch.no_grad():
            return ENCODERS[self.encoder](images, self.time_steps, model.training)
