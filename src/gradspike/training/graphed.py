"""CUDA graphs of a network's training steps (`trainer.cuda_graphs`): the host issues one launch for each pass.

A graph repeats the kernels of one pass on the same memory. No Python of a layer runs again, so everything that differs
between steps must be in tensors that stay where they are: weights, running statistics and thresholds, `progress`.
"""

from __future__ import annotations

import gc
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.collected import FIRST_LAYER, LOSSES, collect_losses, watch_first_layer
from gradspike.errors import UserError, causes, first_line
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.random_state import random_state, restore_random_state

log = logging.getLogger("gradspike")

ALIVE = "the loss of an earlier step, or another tensor with its history, is still referred to"


class GraphedNetwork:
    """Calls a network, and its training steps as two CUDA graphs: forward and backward. Not a module, so that names in
    checkpoints do not change.

    Captures the first shape of inputs that comes for the second time. Other shapes, such as a smaller last batch, steps
    in which a spiking layer has a hook (see `CompiledNetwork`), evaluation and passes outside `collect_losses` run as
    without graphs. A step has the same kernels either way.

    A gradient has the same memory in each step, and the next forward pass may write to it: `backward` must not add to
    gradients of an earlier pass.
    """

    def __init__(self, network: nn.Module, call: Callable[[Tensor], Tensor]) -> None:
        """`call`: the network, or the network compiled."""
        self._network = network
        self._call = call
        self._layers = [layer for layer in network.modules() if isinstance(layer, SpikingNorm)]
        self._seen: set[tuple[Any, ...]] = set()
        self._kind: tuple[Any, ...] | None = None
        self._graphs: Callable[[Tensor], tuple[Tensor, ...]] | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """The network's output. Raises UserError if its step cannot be captured."""
        collector, watch = LOSSES.get(), FIRST_LAYER.get()
        watched = any(layer._forward_hooks for layer in self._layers)
        trains = self._network.training and torch.is_grad_enabled() and collector is not None
        if watched or not trains:
            return self._call(inputs)
        kind = (inputs.shape, inputs.stride(), inputs.dtype, watch is None)
        if self._graphs is None and kind in self._seen:
            self._graphs, self._kind = self._captured(inputs), kind
        self._seen.add(kind)
        if self._graphs is None or kind != self._kind:
            return self._call(inputs)
        logits, sums, *losses = self._graphs(inputs)
        assert collector is not None
        collector.losses += losses
        if watch is not None and sums.numel():
            watch.sums = sums.detach()
        return logits

    def _captured(self, inputs: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """The graphs for inputs like these. The network and random numbers stay as they are."""
        # Autograd's threads and that of the loader may do during the capture what it cannot contain.
        modes: dict[str, Any] = {"capture_error_mode": "thread_local"}
        known = inspect.signature(torch.cuda.make_graphed_callables).parameters
        training_pass = _Pass(self._network, self._call, FIRST_LAYER.get() is not None)
        buffers = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
        random = random_state(inputs.device)
        device = inputs.device.type
        autocast = torch.autocast(
            device,
            torch.get_autocast_dtype(device),
            enabled=torch.is_autocast_enabled(device),
            cache_enabled=False,  # a weight that was cast before the capture would never change again
        )
        gc.collect()  # what an earlier step may have left in cycles would tie gradients to the stream of that step
        try:
            with autocast, _strictly_on_one_stream():
                graphs: Any = torch.cuda.make_graphed_callables(
                    training_pass,
                    (inputs.detach().clone(),),
                    allow_unused_input=True,  # a method's loss may not reach all weights
                    **{name: value for name, value in modes.items() if name in known},
                )
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, UserWarning) as error:
            *_, first = causes(error)  # the others only say that the capture has failed
            reason = ALIVE if isinstance(error, UserWarning) else first_line(first)
            raise UserError(
                f"trainer.cuda_graphs=true: the training step cannot be captured ({reason}). Use "
                "trainer.cuda_graphs=false."
            ) from error
        if inputs.device.type == "cuda" and not torch.equal(random["cpu"], torch.get_rng_state()):
            raise UserError(
                "trainer.cuda_graphs=true: the network draws random numbers on the host, which a graph would repeat in "
                "each step. Use trainer.cuda_graphs=false."
            )
        # Trial passes have moved running statistics and drawn random numbers.
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        restore_random_state(random, inputs.device)
        training_pass.forget()
        log.info("CUDA graphs of the training step, for inputs of shape %s", list(inputs.shape))
        return graphs  # type: ignore[no-any-return]


@contextmanager
def _strictly_on_one_stream() -> Iterator[None]:
    """Gradients that would go to a stream outside the capture are an error at once; CUDA's own says nothing of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "error", message="The AccumulateGrad node's stream does not match", category=UserWarning
        )
        yield


class _Pass(nn.Module):
    """A forward pass with all that it collects as its outputs: logits, sums of the first layer's input (none: an empty
    tensor), and the methods' losses.
    """

    def __init__(self, network: nn.Module, call: Callable[[Tensor], Tensor], watches: bool) -> None:
        super().__init__()
        self.network = network
        self._call = call
        self._watches = watches
        self._outputs: tuple[Tensor, ...] = ()

    @override
    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        with collect_losses() as extra, watch_first_layer() as watch:
            logits = self._call(inputs)
        sums = watch.sums if self._watches and watch.sums is not None else logits.new_empty(0)
        self._outputs = tuple(value.clone() for value in (logits, sums, *extra.losses))
        return self._outputs

    def forget(self) -> None:
        """End the history of the captured pass. It would tie the weights' gradients to the stream of the capture, for
        which each step would wait.
        """
        for value in self._outputs:
            value.detach_()
        self._outputs = ()
