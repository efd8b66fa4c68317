"""Moderate dropout before the last layer (LTMD; Wang, Cheng, Lim, NeurIPS 2022): active units are kept more often."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradspike.models.head import linear_head


def keep_probability(features: Tensor, rate: float) -> Tensor:
    """The probability [B, F] that a feature is kept, from features [T, B, F]; its mean is 1 - rate before the clip.

    With d the mean over time and p = (d - min d) / (max d - min d), both over the batch:

        keep = clip(1 - (1 - p) rate / (1 - mean p), 0, 1)

    If all d are equal, p is 0 and keep is 1 - rate.
    """
    d = features.mean(0)
    lowest, highest = d.min(), d.max()
    p = (d - lowest) / torch.where(highest > lowest, highest - lowest, torch.ones_like(d[0, 0]))
    return (1 - (1 - p) * rate / (1 - p.mean())).clamp(0, 1)


def moderate_dropout(features: Tensor, rate: float) -> Tensor:
    """Features [T, B, F] with the same ones dropped at all steps, the kept ones divided by their probability.

    As in the released code, gradient flows through that division, but not through the draw. Random numbers come from
    torch's CPU generator, whose state is in checkpoints.
    """
    keep = keep_probability(features.to(torch.float64 if features.dtype == torch.float64 else torch.float32), rate)
    seed = int(torch.randint(2**63 - 1, ()))
    noise = torch.empty_like(keep).uniform_(generator=torch.Generator(keep.device).manual_seed(seed))
    mask = (noise < keep) / torch.where(keep > 0, keep, torch.ones_like(keep))
    return features * mask.to(features.dtype)


def drop_features(model: nn.Module, rate: float, time_steps: int) -> None:
    """Apply moderate dropout to the inputs of the linear layer `model.head` in training; nothing for a rate of 0.

    A hook, so that it changes no parameter name. Raises ConfigError if the model has no such layer.
    """
    if not rate:
        return
    head = linear_head(model, f"model.moderate_dropout={rate:g}", "before", "model.moderate_dropout=0")
    head.register_forward_pre_hook(_DropoutHook(rate, time_steps))


class _DropoutHook:
    """An object, not a closure, because models are copied and pickled."""

    def __init__(self, rate: float, time_steps: int) -> None:
        self.rate = rate
        self.time_steps = time_steps

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, head: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
        if not head.training:
            return None
        steps = torch.unflatten(inputs[0], 0, (self.time_steps, -1))
        return moderate_dropout(steps, self.rate).flatten(0, 1)
