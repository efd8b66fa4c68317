"""Memory layout of gradients that several ranks exchange."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradspike.training.gradients import lay_out_like_weights


@pytest.mark.parametrize("shape", [(4, 1, 3, 3), (9, 4, 1, 1), (4, 1), (6,)])
def test_gradients_have_the_strides_of_their_weights(shape: tuple[int, ...]) -> None:
    """In torch, the stride of an axis of size 1 may differ."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)
    odd = tuple(77 if size == 1 else stride for size, stride in zip(shape, values.stride(), strict=True))
    weight = nn.Parameter(torch.randn(shape))
    lay_out_like_weights([weight])
    weight.backward(values.as_strided(shape, odd))
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()
    assert torch.equal(weight.grad, values)


def test_a_gradient_in_another_order_keeps_its_values() -> None:
    weight = nn.Parameter(torch.randn(3, 2, 1, 5).to(memory_format=torch.channels_last))
    lay_out_like_weights([weight])
    values = torch.randn(3, 2, 1, 5)
    weight.backward(values)
    assert weight.grad is not None
    assert torch.equal(weight.grad, values)
