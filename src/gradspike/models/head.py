"""The linear layer that gives a network's logits."""

from __future__ import annotations

from torch import nn

from gradspike.errors import ConfigError


def linear_head(model: nn.Module, asked: str, place: str, instead: str) -> nn.Linear:
    """The layer `model.head`. Raises ConfigError if there is none.

    asked: the setting that needs it; place: where it would go, as "before"; instead: the setting without it.
    """
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear):
        raise ConfigError(f"{asked}: this network has no linear layer named `head` to put it {place}. Use {instead}.")
    return head
