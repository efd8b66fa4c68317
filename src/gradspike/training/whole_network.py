"""torch.compile of a whole network, for training steps without hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradspike.engine.compiled import TorchDynamoException, compile_options, why_not_compiled
from gradspike.errors import UserError
from gradspike.spiking_norm import SpikingNorm


class CompiledNetwork:
    """Calls a network through torch.compile. Not a module, so that names in checkpoints do not change.

    Compiles only training steps in which no spiking layer has a hook, because torch.compile ignores hooks that come and
    go. Probed steps have hooks, and so have steps before each layer's first spike of an epoch, for the warning about
    silent layers. Evaluation is not compiled, so training reports the same numbers as `gradspike evaluate`. A resumed
    run compiles the same steps.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._layers = [layer for layer in network.modules() if isinstance(layer, SpikingNorm)]
        self._compiled: Any = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """The network's output. Raises UserError if it cannot be compiled."""
        watched = any(layer._forward_hooks for layer in self._layers)
        if watched or not self._network.training:
            return self._network(inputs)  # type: ignore[no-any-return]
        if self._compiled is None:  # the device is known only now
            options = compile_options(inputs.device.type)
            self._compiled = torch.compile(self._network.forward, dynamic=False, options=options)
        try:
            return self._compiled(inputs)  # type: ignore[no-any-return]
        except TorchDynamoException as error:
            reason = why_not_compiled(error, inputs.device.type)
            raise UserError(
                f"trainer.compile=true: torch.compile cannot compile this network on this machine ({reason}). "
                "Otherwise use trainer.compile=false."
            ) from error
