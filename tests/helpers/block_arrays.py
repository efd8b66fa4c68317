"""Blocks and networks compared with the arrays of their released code."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gradspike.models.spiking_layers import name_layers
from gradspike.spiking_norm import LayerContext
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config
from helpers.plugin_arrays import Case, assert_close, fold, part, scaled_atol

Names = Mapping[str, str | None]
"""Our name for each prefix of theirs; None for what the released code never uses."""


def context(time_steps: int, neuron: dict[str, object], method: dict[str, object]) -> LayerContext:
    """Layers with plain batch norm, `lif` and a fixed surrogate."""
    return LayerContext(
        time_steps=time_steps,
        neuron=neuron_config("lif", **neuron),
        method=method_config("fixed_sg", **method),
        norm=norm_config("bn"),
    )


def ours(name: str, names: Names) -> str | None:
    """Our name of a parameter or buffer, by the longest prefix that is listed."""
    prefix = max((one for one in names if name.startswith(one)), key=len)
    found = names[prefix]
    return None if found is None else found + name.removeprefix(prefix)


def translated(arrays: Case, names: Names) -> Case:
    """Arrays by our names, without those that the released code never uses."""
    return {found: value for name, value in arrays.items() if (found := ours(name, names)) is not None}


def transformer_layers(time_steps: int) -> LayerContext:
    """The layers of all released transformers."""
    neuron = {"decay": 0.5, "decay_input": True, "detach_reset": True}
    return context(time_steps, neuron, {"v_threshold": 1.0, "surrogate": "sigmoid", "width": 1.0})


def below(prefix: str, our_prefix: str, names: Names) -> Names:
    """The names of a part, in a network that has it under other names."""
    return {f"{prefix}.{name}": None if our is None else f"{our_prefix}.{our}" for name, our in names.items()}


def plain(x: Tensor) -> Tensor:
    """Images and logits, which have no time."""
    return x


def called(block: nn.Module, x: Tensor) -> Tensor:
    """The output of a block."""
    out: Tensor = block(x)
    return out


def time_mean(network: nn.Module, x: Tensor) -> Tensor:
    """The logits [B, K] of a network, whose released code takes the mean over time."""
    logits: Tensor = network(x)
    return logits.mean(0)


def compare_block(
    block: nn.Module,
    data: Case,
    names: Names,
    enter: Callable[[Tensor], Tensor] = fold,
    leave: Callable[[Tensor], Tensor] = fold,
    run: Callable[[nn.Module, Tensor], Tensor] = called,
) -> None:
    """A training pass and an evaluation: outputs, gradients of inputs and parameters, running statistics.

    `enter` and `leave` make our inputs and outputs of theirs.
    """
    name_layers(block)
    state = block.state_dict()
    initial = translated(part(data, "init"), names)
    for name, value in initial.items():
        state[name].copy_(value.view_as(state[name]))
    learned = {name for name, _ in block.named_parameters()}
    assert learned <= set(initial), learned - set(initial)

    x = enter(data["x"]).requires_grad_()
    out = run(block.train(), x)
    assert_close(out, leave(data["out"]), "out")
    out.backward(leave(data["grad_out"]))
    assert_close(x.grad, enter(data["grad_x"]), "grad_x")
    for name, expected in translated(part(data, "grad"), names).items():
        grad = block.get_parameter(name).grad
        assert_close(
            None if grad is None else grad.view_as(expected), expected, f"grad {name}", atol=scaled_atol(expected)
        )
    for name, expected in translated(part(data, "after"), names).items():
        assert_close(block.get_buffer(name), expected, f"after {name}")
    with torch.no_grad():
        assert_close(run(block.eval(), enter(data["eval_x"])), leave(data["eval_out"]), "eval_out")
