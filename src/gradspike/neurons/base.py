"""What a neuron is: how the membrane potential charges, fires and resets in one spiking layer.

A neuron is a module, one instance per layer, with the layer's parameters. Its dynamics are static methods, functions of
tensors and options alone, so that an engine compiles them once for all layers and derives the backward pass. No module
keeps a potential, so there is nothing to reset between batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from gradspike.errors import ConfigError
from gradspike.neurons.options import NeuronConfig
from gradspike.neurons.registry import NEURONS
from gradspike.surrogate import Surrogate

State = tuple[Tensor, ...]
"""Tensors of one step's shape that are carried to the next step."""

Values = Mapping[str, Tensor]
"""`Neuron.values` of one step, by name, shaped to broadcast against it."""


class Mixture(NamedTuple):
    """Potentials u[t] = sum_j weights[t, j] x[j] + biases[t] of all steps.

    Attributes:
        weights: [T, T].
        biases: [T].
        counts: whether step j counts for step t. The weights of the others are always 0, and not computed with. At
            least one step counts for each.
    """

    weights: Tensor
    biases: Tensor
    counts: Sequence[Sequence[bool]]


class Neuron(nn.Module):
    """Base class, and a leaky integrator with hard reset to 0.

    A subclass has `decay`, or `values` and dynamics of its own.

    A step of the dynamics is `charge`, `fire`, `reset`:

        u = charge(x, state)       the potential that meets the threshold
        s = fire(u, theta)
        state = reset(u, s, theta, state)

    Arguments of the dynamics: `x` the current of a step, of any shape; `state` what the last `reset` returned, at first
    what `start` returned; `theta` and `kappa` threshold and surrogate width, `s` the spikes, `p` the neuron's values
    (all broadcast against x); `o` its options. They may use any differentiable operation on whole tensors, and no
    tensor besides their arguments.

    Class attributes:
        Config: its options, a subclass of NeuronConfig.
        axes: for each of `values` its axes: "" a scalar; "C" one per channel, or a scalar; "T" or "TC" the same per
            step; "each" an array of scalars, of which the dynamics take one at a time, by `unbind`; any other letters:
            passed to the dynamics as it is.
        charges_at_once: the potentials of all steps depend on the currents alone; `mixture` or `charge_all` gives them.
        has_own_gradient: `fire` does not use the surrogate, so methods cannot set its width.
        follows_end: `follow` is called after each training pass.
    """

    Config: ClassVar[type[NeuronConfig]] = NeuronConfig
    axes: ClassVar[Mapping[str, str]] = {"decay": ""}
    charges_at_once: ClassVar[bool] = False
    has_own_gradient: ClassVar[bool] = False
    follows_end: ClassVar[bool] = False

    def __init__(self, config: NeuronConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__()
        self.config = config
        self.time_steps = time_steps
        self.channels = channels
        self._standard = self._has_standard_dynamics()

    @property
    def decay(self) -> Tensor | None:
        """tau, a scalar in (0, 1], with gradient if it is learned; None if the neuron has no such factor."""
        return None

    @property
    def threshold(self) -> Tensor | None:
        """The neuron's own threshold, a scalar or [C], with gradient if it is learned; None: the method sets it."""
        return None

    def thresholds(self, time_steps: int, dtype: torch.dtype) -> Tensor | None:
        """`threshold` at all steps, [T] or [T, C], contiguous; None if the method sets it."""
        own = self.threshold
        return None if own is None else own.to(dtype).expand(time_steps, *own.shape).contiguous()

    def values(self) -> dict[str, Tensor]:
        """The tensors that the dynamics use, with gradient if they are learned. The names are those of `axes`."""
        decay = self.decay
        assert decay is not None
        return {"decay": decay}

    @staticmethod
    def start(x: Tensor, p: Values, o: Any) -> State:
        """The state before the first step, whose current is x."""
        return (torch.zeros_like(x),)

    @staticmethod
    def charge(x: Tensor, state: State, p: Values, o: Any) -> Tensor:
        """The potential u of a step."""
        (w,) = state
        return p["decay"] * w + x

    @staticmethod
    def charge_all(currents: Sequence[Tensor], p: Values, o: Any) -> list[Tensor]:
        """The potentials of all steps. Called in place of `charge` if the neuron `charges_at_once` and has no
        `mixture`.
        """
        raise NotImplementedError

    @staticmethod
    def mixture(p: Values, o: Any, time_steps: int) -> Mixture | None:
        """The potentials of all steps, as weights that do not depend on the currents, for a neuron that
        `charges_at_once`. Values of the axes "each" are whole here, perhaps with more axes behind their own.
        """
        return None

    @staticmethod
    def fire(u: Tensor, theta: Tensor, kappa: Tensor, surrogate: Surrogate, p: Values, o: Any) -> tuple[Tensor, Tensor]:
        """The spikes, and the differentiable function of u and theta whose gradient replaces theirs."""
        fired = u > theta if o.fires == "above_threshold" else u >= theta
        return fired.to(u.dtype), surrogate.primitive(u - theta, kappa)

    @staticmethod
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        """The state after a step."""
        return (u * (1 - s),)

    def follow(self, total: Tensor, count: Tensor) -> None:
        """After a training pass: sum of the last state's first tensor over the elements that fired, and their number,
        over all ranks. Called if the neuron `follows_end`.
        """

    @property
    def is_standard(self) -> bool:
        """Whether this is the leaky integrator with hard reset to 0, for which engines have hand-written formulas."""
        return self._standard and self.threshold is None

    @property
    def is_binary(self) -> bool:
        """Whether `fire` is known to give 0 and 1 alone: that of the base class does."""
        return type(self).fire is Neuron.fire

    def _has_standard_dynamics(self) -> bool:
        """Whether dynamics and options are those of the base class; whatever the value of tau."""
        return self._has_dynamics_of(Neuron) and has_standard_options(self.config)

    def _has_dynamics_of(self, base: type[Neuron]) -> bool:
        """Whether this neuron's class overrides nothing of the dynamics of `base`."""
        same = all(getattr(type(self), name) is getattr(base, name) for name in DYNAMICS)
        return same and not self.follows_end


def is_mixture(neuron: type[Neuron]) -> bool:
    """Whether the potentials are a `Mixture`. A subclass may replace it with a `charge_all`."""
    return neuron.mixture is not Neuron.mixture and neuron.charge_all is Neuron.charge_all


DYNAMICS = ("values", "start", "charge", "charge_all", "mixture", "fire", "reset")
"""The methods of a neuron that describe its dynamics."""


def has_standard_options(config: NeuronConfig) -> bool:
    """Whether a neuron with the base class's dynamics needs no other formulas than the standard ones."""
    return config.fires == "at_threshold" and config.gradient == "bptt"


def build_neuron(config: NeuronConfig, time_steps: int, channels: int, v_threshold: float) -> Neuron:
    """A new neuron for one layer. Raises ConfigError if the name is unknown, or it is not a usable Neuron."""
    neuron = NEURONS.build(Neuron, config, time_steps, channels, v_threshold)
    _check(neuron, config.name)
    return neuron


def _check(neuron: Neuron, name: str) -> None:
    decay = getattr(neuron, "decay", None)
    needed = type(neuron).values is Neuron.values
    if (needed or decay is not None) and not (isinstance(decay, Tensor) and decay.ndim == 0):
        unless = ", unless it has `values` and dynamics of its own" if decay is None else ""
        raise ConfigError(f"neuron '{name}': its attribute `decay` must be a scalar tensor{unless}.")
    values = neuron.values()
    if set(values) != set(neuron.axes):
        raise ConfigError(
            f"neuron '{name}': `values` has {sorted(values)}, but `axes` describes {sorted(neuron.axes)}."
        )
    sizes = {"T": neuron.time_steps, "C": neuron.channels}
    for key, axes in neuron.axes.items():
        if axes not in ("", "C", "T", "TC"):
            continue
        full = tuple(sizes[axis] for axis in axes)
        allowed = {full, full[:-1] if axes.endswith("C") else full}
        if tuple(values[key].shape) not in allowed:
            shapes = " or ".join(str(list(shape)) for shape in sorted(allowed))
            raise ConfigError(
                f"neuron '{name}': its value '{key}' has shape {list(values[key].shape)}; its axes '{axes}' ask for "
                f"{shapes}."
            )
