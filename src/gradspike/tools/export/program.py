"""A network as a program: torch.export's pt2, and ONNX made of it. Batches of any size."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from gradspike.library.load import TrainedModel
from gradspike.tools.export.whole import WholeNetwork, sample_inputs

DESCRIPTION = "gradspike.json"
"""Name of the description among a pt2 file's extra files, and among ONNX's metadata."""
INPUT, OUTPUT = "samples", "logits"


@torch.no_grad()
def exported_program(net: TrainedModel) -> torch.export.ExportedProgram:
    """The network as a program from stored samples to logits; see `whole.WholeNetwork`."""
    whole, samples = WholeNetwork(net), sample_inputs(net, batch=2)
    whole(samples)  # the transform keeps its statistics as tensors from its first call on
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    with _quiet(), _WithoutIdentities():
        program = torch.export.export(whole, (samples,), dynamic_shapes=shapes)
    # Surrogates, widths and the state after the last step have no effect on the logits.
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def pt2_file(net: TrainedModel, description: str) -> bytes:
    """The content of a file for `torch.export.load`."""
    file = io.BytesIO()
    with _quiet():
        torch.export.save(exported_program(net), file, extra_files={DESCRIPTION: description})
    return file.getvalue()


def onnx_file(net: TrainedModel, description: str) -> bytes:
    """The content of an ONNX file, with its weights inside."""
    program = exported_program(net)
    with _quiet():
        made = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False)
    assert made is not None
    made.model.metadata_props[DESCRIPTION] = description
    content: bytes = made.model_proto.SerializeToString()
    return content


class _WithoutIdentities(TorchFunctionMode):
    """Leaves out casts to the dtype that a tensor has, and `detach`.

    torch.export records each of them with an assertion, and the time that ONNX's export takes follows the number of
    operations. No gradient is recorded, so both give the tensor itself.
    """

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.detach or (func is Tensor.to and not kwargs and args[1:] == (args[0].dtype,)):
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and progress of torch's exporters, which concern their own code."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("torch.onnx", "onnxscript", "onnx_ir"))}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in levels:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
