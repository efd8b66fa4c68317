"""Reference arrays of neurons, norms, losses and blocks: the cases of a file, and their tolerances.

`tests/reference/plugins/README.md` describes the files. `GRADSPIKE_REFERENCE` names another folder in the same format,
with the files in its folder `plugins`. Cases are found by the keys in a file, never by a list of names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradspike.neurons.base import Neuron, State

REFERENCE = Path(os.environ.get("GRADSPIKE_REFERENCE") or Path(__file__).parents[1] / "reference") / "plugins"
RTOL, ATOL = 1e-4, 1e-5
SUMMED_ATOL = 2e-5
"""Of gradients of parameters that sum over a whole batch, for neurons and norms."""
MISSING = "no case"
"""The name that `cases` gives if it finds none, so that the test of this name fails instead of being skipped."""

Case = dict[str, Tensor]


@cache
def _file(name: str) -> Case:
    path = REFERENCE / f"{name}.npz"
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays.files}


def all_cases(file: str) -> set[str]:
    """Names of all cases of a file; empty if the file is missing."""
    return {key.partition("/")[0] for key in _file(file)}


def cases(file: str, *has: str, lacks: tuple[str, ...] = ()) -> list[str]:
    """Names of the cases of a file with all keys of `has` and none of `lacks`, sorted; [MISSING] if there are none.

    For pytest.mark.parametrize. A key is what follows the case's name: "x", "b0/x".
    """
    found = [
        name
        for name in sorted(all_cases(file))
        if all(f"{name}/{key}" in _file(file) for key in has)
        and not any(f"{name}/{key}" in _file(file) for key in lacks)
    ]
    return found or [MISSING]


def case(file: str, name: str) -> Case:
    """Arrays of one case by key, as new tensors. Fails if the file or the case is missing."""
    prefix = f"{name}/"
    found = {key.removeprefix(prefix): value.clone() for key, value in _file(file).items() if key.startswith(prefix)}
    assert found, f"{REFERENCE / f'{file}.npz'}: {name} (GRADSPIKE_REFERENCE names the folder above `plugins`)"
    return found


def part(data: Case, name: str) -> Case:
    """The arrays of a case below a name: `part(data, "b0")["x"]` is `data["b0/x"]`."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def batches(data: Case) -> list[Case]:
    """The training batches b0, b1, ... of a case, in order."""
    numbers = sorted({int(key.partition("/")[0][1:]) for key in data if key[0] == "b" and key[1:2].isdigit()})
    assert numbers == list(range(len(numbers))), numbers
    return [part(data, f"b{number}") for number in numbers]


def time_first(x: Tensor) -> Tensor:
    """[B, T, ...] of the files as [T, B, ...]."""
    return x.transpose(0, 1).contiguous()


def fold(x: Tensor) -> Tensor:
    """[B, T, ...] of the files as [T*B, ...]."""
    return time_first(x).flatten(0, 1)


def stepped(neuron: Neuron, x: Tensor, spikes: Tensor, theta: float) -> Iterator[tuple[Tensor, State]]:
    """Charged potential and state after each step, by the neuron's dynamics with given spikes [T, B, ...]."""
    values, options = neuron.values(), neuron.config
    state = neuron.start(x[0], values, options)
    for current, s in zip(x, spikes, strict=True):
        u = neuron.charge(current, state, values, options)
        state = neuron.reset(u, s, torch.tensor(theta), state, values, options)
        yield u, state


def assert_close(actual: Tensor | None, expected: Tensor, what: str, *, atol: float = ATOL) -> None:
    """Compare within RTOL and `atol`, in the dtype of `expected`. None is an absent gradient, which fails."""
    assert actual is not None, what
    torch.testing.assert_close(
        actual.detach().to(expected.dtype), expected, rtol=RTOL, atol=atol, msg=lambda text: f"{what}: {text}"
    )


def assert_spikes(actual: Tensor, expected: Tensor) -> None:
    """Compare spikes of any dtype; all of them are equal."""
    wrong = int((actual.detach().to(expected.dtype) != expected).sum())
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert not wrong, f"{wrong} of {expected.numel()} spikes differ"


def scaled_atol(expected: Tensor) -> float:
    """Absolute tolerance of parameters' gradients in files of blocks and networks."""
    return ATOL * max(1.0, float(expected.abs().max()))
