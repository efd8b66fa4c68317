"""torch.compile of a whole network, for the training steps in which nobody looks inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from gradspike.errors import UserError
from gradspike.spiking_norm import SpikingNorm


class CompiledNetwork:
    """Calls a network through torch.compile. It is no module, so that names in checkpoints stay as they are.

    Evaluation, and training steps in which a spiking layer has a hook (probed steps, and the watch for silent layers,
    which ends with a layer's first spike of an epoch), run as they would without: torch.compile takes no notice of
    hooks that come and go. So an evaluation's numbers are those of gradspike evaluate, and whether a step is compiled
    follows from what a checkpoint holds.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._layers = [layer for layer in network.modules() if isinstance(layer, SpikingNorm)]
        self._compiled = torch.compile(network.forward, dynamic=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        """The network's output. Raises UserError where it cannot be compiled."""
        watched = any(layer._forward_hooks for layer in self._layers)
        if watched or not self._network.training:
            return self._network(inputs)  # type: ignore[no-any-return]
        try:
            return self._compiled(inputs)  # type: ignore[no-any-return]
        except TorchDynamoException as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(
                f"trainer.compile=true: torch.compile does not manage this network here ({reason}). It needs a C++ "
                "compiler on a CPU, Triton on a GPU. Train with trainer.compile=false."
            ) from error
