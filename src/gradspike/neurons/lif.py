"""LIF: leaky integrate-and-fire with a constant decay factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from gradspike.neurons.base import Neuron
from gradspike.neurons.options import NeuronConfig


class LifConfig(NeuronConfig):
    """`decay` is tau."""

    decay: float = Field(default=0.2, gt=0, lt=1)


class LIF(Neuron):
    """Constant decay factor: no parameter, and nothing in a state dict."""

    Config: ClassVar[type[LifConfig]] = LifConfig
    decay: Tensor

    def __init__(self, config: LifConfig) -> None:
        super().__init__()
        self.value = config.decay
        self.register_buffer("decay", torch.tensor(config.decay), persistent=False)

    @override
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LIF:
        # A change of dtype would keep the rounding of the old one, and to_empty() would leave garbage.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.decay.fill_(self.value)
        return self

    @override
    def extra_repr(self) -> str:
        return f"decay={self.value}"
