"""Encoders of still images as spikes: by rate (poisson) or by the time of a single spike (latency)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradspike.engine.base import empty_steps

EVALUATION_SEED = 0


def poisson(images: Tensor, time_steps: int, training: bool) -> Tensor:
    """Spikes [T, B, C, H, W] of images [B, C, H, W] of 0 to 1. At each step a pixel spikes with its value as
    probability, independently of earlier steps (Heeger 2000).

    In training, random numbers are new in each call and come from torch's CPU generator, whose state is in checkpoints.
    In evaluation they are the same for each call, sample and device, so a sample's spikes depend neither on its batch
    nor on earlier evaluations.
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
    """Spikes [T, B, C, H, W] of images [B, C, H, W] of 0 to 1. Each pixel spikes once; brighter pixels spike earlier.

    The range from 0 to 1 is divided into T equal parts; the brightest part spikes at the first step. A pixel of 0 never
    spikes.
    """
    steps = torch.arange(time_steps, device=images.device).view(-1, *[1] * images.ndim)
    when = ((1 - images) * time_steps).floor().clamp(0, time_steps - 1)
    return empty_steps(images.expand(time_steps, *images.shape)).copy_((steps == when) & (images > 0))


ENCODERS: dict[str, Callable[[Tensor, int, bool], Tensor]] = {"poisson": poisson, "latency": latency}


def encode_inputs(model: nn.Module, encoder: str, time_steps: int) -> None:
    """Encode images [B, C, H, W] as spikes [T, B, C, H, W] before they enter the backbone.

    A hook, not a module around the backbone, so that an encoder changes no parameter name.
    """
    if encoder != "direct":
        model.register_forward_pre_hook(_EncoderHook(encoder, time_steps))


class _EncoderHook:
    """An object, not a closure, because models are copied and pickled."""

    def __init__(self, encoder: str, time_steps: int) -> None:
        self.encoder = encoder
        self.time_steps = time_steps

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, model: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        (images,) = inputs
        if images.ndim != 4:
            raise ValueError(
                f"model.encoder={self.encoder} is for still images [B, C, H, W]; got {list(images.shape)}."
            )
        with torch.no_grad():
            return ENCODERS[self.encoder](images, self.time_steps, model.training)


def encoder_of(model: nn.Module) -> str | None:
    """The encoder that `encode_inputs` has put before this module; None if there is none."""
    hooks = model._forward_pre_hooks.values()
    return next((hook.encoder for hook in hooks if isinstance(hook, _EncoderHook)), None)
