"""What a method is: the thresholds and surrogate widths of one spiking layer, per time step, and an optional loss.

A method is a module, one instance per layer. Learned values are parameters; all other state is in persistent buffers.
A method implements `plan`. If it needs the membrane potential before a step fires, it sets `measures_membrane` and
implements `adapt`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from gradspike.errors import ConfigError
from gradspike.methods.options import MIN_WIDTH, MethodConfig
from gradspike.methods.registry import METHODS
from gradspike.surrogate import Surrogate, surrogate_of


class _Late:
    """A field of a dataclass that may be given as a function, which computes it when it is first read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, facts: LayerFacts | None, owner: type) -> Tensor | None:
        if facts is None:
            return None  # the default
        value = facts.__dict__[self._name]
        if callable(value):
            value = facts.__dict__[self._name] = value()
        return value  # type: ignore[no-any-return]

    def __set__(self, facts: LayerFacts, value: Tensor | Callable[[], Tensor] | None) -> None:
        facts.__dict__[self._name] = value


@dataclass(frozen=True)
class LayerFacts:
    """What a method may know about its layer in a forward pass. Tensors are detached scalars in the recursion's dtype.

    Attributes:
        time_steps: T.
        v_threshold: base threshold V_th.
        scalar: the decay factor, or a scalar without meaning if the neuron has none; read `decay`.
        gamma_mean: mean gain of the norm relative to alpha * V_th; None if the layer has no norm. Computed when it is
            first read.
        training: mode of the layer.
        gradients: a backward pass may follow, so widths matter.
        updates: the method may change its buffers and draw random numbers; False in diagnostics.
        without_decay: name of a neuron that has no decay factor.
    """

    time_steps: int
    v_threshold: float
    scalar: Tensor
    gamma_mean: _Late = _Late()
    training: bool = True
    gradients: bool = True
    updates: bool = True
    without_decay: str = ""

    @property
    def decay(self) -> Tensor:
        """Decay factor tau of the neuron. Raises ConfigError if it has none."""
        if self.without_decay:
            raise ConfigError(f"The method uses the decay factor, which neuron '{self.without_decay}' does not have.")
        return self.scalar

    @property
    def dtype(self) -> torch.dtype:
        """The recursion's dtype."""
        return self.scalar.dtype

    @property
    def device(self) -> torch.device:
        """The layer's device."""
        return self.scalar.device

    def full(self, value: float) -> Tensor:
        """[T] tensor of `value`, on the device and in the dtype of the recursion."""
        return torch.full((self.time_steps,), value, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class Plan:
    """Thresholds and widths of all steps, each [T] or [T, C]; with gradient if they are learned.

    If the method is `per_neuron`, they may also be [T, C, *space]. `constant`: both are options of the method, which
    its `Config` has checked, so no pass checks shapes, or counts and clamps widths.
    """

    thresholds: Tensor
    widths: Tensor
    constant: bool = False


@dataclass(frozen=True)
class Differences:
    """How a method's value is chosen by finite differences of the loss; see `training.callbacks.finite_differences`.

    Attributes:
        every: epochs between two choices.
        size: the difference of a weight.
        weights: how many weights of the first layer to compare, drawn at random; None: all.
    """

    every: int
    size: float
    weights: int | None = None


class Method(nn.Module):
    """Base class. Override `plan` or `adapt`, and `membrane_loss` for a loss on the potential.

    Class attributes:
        Config: its options, a subclass of MethodConfig.
        measures_membrane: `adapt` is called with mean and std of u[t] before step t fires; no gradient flows through
            its results.
        uses_progress: the method has `progress`, a scalar buffer with the share of the training that is over, from 0 to
            1; see `set_progress`.

    Attributes of the class, or of an instance whose options decide:
        sets_threshold: thresholds differ from V_th, so neurons with a threshold of their own cannot be used.
        sets_width: the method is about the surrogate's width, so neurons without a surrogate cannot be used.
        scales_spikes: a layer emits theta[t] s[t], not s[t].
        per_neuron: a plan may have one value for each neuron, a position of a channel. `set_space` then tells the
            method the layer's size. Every engine uses the reference engine.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    measures_membrane: ClassVar[bool] = False
    uses_progress: ClassVar[bool] = False
    sets_threshold: bool = False
    sets_width: bool = True
    scales_spikes: bool = False
    per_neuron: bool = False
    space: tuple[int, ...] = ()

    width_clamps: Tensor
    progress: Tensor

    def __init__(self, config: MethodConfig, time_steps: int, channels: int) -> None:
        super().__init__()
        self.config = config
        self.time_steps = time_steps
        self.channels = channels
        self.layer_name = ""
        self.register_buffer("width_clamps", torch.zeros((), dtype=torch.int64), persistent=False)
        if self.uses_progress:
            self.register_buffer("progress", torch.zeros(()), persistent=False)

    def plan(self, facts: LayerFacts) -> Plan:
        """Thresholds and widths of all steps, called before the first step."""
        raise self.error("has no `plan`, and `measures_membrane` is not set, so `adapt` is not called.")

    def adapt(self, t: int, facts: LayerFacts, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Threshold and width of step t, scalars or [C], from mean and unbiased std of u[t] over the mini-batch."""
        raise self.error("sets `measures_membrane` but has no `adapt`.")

    def membrane_loss(self, facts: LayerFacts, mean: Tensor, variance: Tensor) -> Tensor:
        """A scalar loss from mean and (biased) variance [T] of u, differentiable. Called if `has_membrane_loss`."""
        raise self.error("sets `has_membrane_loss` but has no `membrane_loss`.")

    @property
    def has_membrane_loss(self) -> bool:
        """Whether `membrane_loss` adds to the training loss."""
        return False

    def current_loss(self, facts: LayerFacts, mean: Tensor) -> Tensor:
        """A scalar loss from the mean of the current over all elements and steps. Called if `has_current_loss`."""
        raise self.error("sets `has_current_loss` but has no `current_loss`.")

    @property
    def has_current_loss(self) -> bool:
        """Whether `current_loss` adds to the training loss. The norm then runs as plain torch before the neuron."""
        return False

    @property
    def shape(self) -> Surrogate:
        """The surrogate. A plan's widths are its second argument."""
        return surrogate_of(self.config.surrogate)

    @property
    def analog_share(self) -> Tensor | None:
        """In training, the share (a scalar) of elements that emit the surrogate's primitive, drawn at random for each
        element and step; None for no such noise.
        """
        return None

    def draws_noise(self, facts: LayerFacts) -> bool:
        """Whether this pass draws random numbers."""
        return facts.training and facts.updates and self.analog_share is not None

    @property
    def sync_stats(self) -> bool:
        """Whether statistics for `adapt` and the losses cover all ranks in training, or each rank its own.

        It is the option of this name, if there is one.
        """
        return getattr(self.config, "sync_stats", "auto") is not False

    def measures(self, facts: LayerFacts) -> bool:
        """Whether this pass needs `adapt`. If only some do, override this and implement `plan` too."""
        return self.measures_membrane

    def lr_multipliers(self) -> dict[str, float]:
        """Learning-rate factors of the method's parameters, by name; 1 for those not listed."""
        return {}

    def quantities(self) -> dict[str, Tensor]:
        """Scalars beside threshold and width that the probe shows, by name."""
        return {}

    @property
    def differences(self) -> Differences | None:
        """If the method has a value, the same in all layers, that finite differences of the loss choose: how."""
        return None

    def candidates(self) -> list[float]:
        """The values to choose from, first the present one, which stays if none is better. Called if `differences`."""
        raise self.error("sets `differences` but has no `candidates`.")

    def take(self, candidate: float) -> None:
        """Set the value, kept in a persistent buffer. Called if `differences`."""
        raise self.error("sets `differences` but has no `take`.")

    @property
    def adam_lr(self) -> float | None:
        """The constant learning rate of an Adam, without weight decay, for the parameters of the method and of its
        layer's neuron; None: the network's optimiser trains them.
        """
        return None

    def set_space(self, space: tuple[int, ...]) -> None:
        """The size of the layer beside its channels. Called once, when the network is built, if `per_neuron`."""
        self.space = space

    def planned(self, facts: LayerFacts) -> Plan:
        """`plan` as engines call it: shapes checked, widths kept positive."""
        plan = self.plan(facts)
        if plan.constant:
            return plan
        for what, value in (("thresholds", plan.thresholds), ("widths", plan.widths)):
            steps = (self.time_steps,)
            allowed = [steps, (*steps, self.channels)]
            if self.space:
                allowed.append((*steps, self.channels, *self.space))
            self._check(what, value, allowed)
        return Plan(plan.thresholds, self._keep_positive(plan.widths, facts))

    def adapted(self, t: int, facts: LayerFacts, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """`adapt` as engines call it: shapes checked, width kept positive."""
        threshold, width = self.adapt(t, facts, mean, std)
        for what, value in (("threshold", threshold), ("width", width)):
            self._check(what, value, allowed=((), (self.channels,)))
        return threshold, self._keep_positive(width, facts)

    def error(self, message: str) -> ConfigError:
        """An error that names method and layer."""
        where = f" in layer '{self.layer_name}'" if self.layer_name else ""
        return ConfigError(f"Method '{self.config.label or self.config.name}'{where} {message}")

    def _check(self, what: str, value: Tensor, allowed: Sequence[tuple[int, ...]]) -> None:
        if tuple(value.shape) not in allowed:
            shapes = " or ".join(str(list(shape)) for shape in allowed)
            raise self.error(f"returned {what} of shape {list(value.shape)}; expected {shapes}.")

    def _keep_positive(self, widths: Tensor, facts: LayerFacts) -> Tensor:
        # Counted on the device, so only reading the counter waits for it.
        if facts.training and facts.updates:
            self.width_clamps.add_((widths.detach() < MIN_WIDTH).sum())
        return widths.clamp_min(MIN_WIDTH)


def build_method(config: MethodConfig, time_steps: int, channels: int) -> Method:
    """A new method for one layer of `channels` channels. Raises ConfigError if the name is unknown or not a Method."""
    return METHODS.build(Method, config, time_steps, channels)


def set_progress(model: nn.Module, progress: float) -> None:
    """Set `progress` of all methods in a model that use it: finished epochs / all epochs, at the start of an epoch.

    It follows from the epoch, so a resumed run needs no state for it.
    """
    for module in model.modules():
        if isinstance(module, Method) and module.uses_progress:
            module.progress.fill_(progress)


def check_method(method: Method, facts: LayerFacts) -> None:
    """Call the method once without changing it. Raises ConfigError if its results do not have the declared shapes."""
    with torch.no_grad():
        if method.measures(facts):
            method.adapted(0, facts, mean=torch.zeros_like(facts.scalar), std=torch.ones_like(facts.scalar))
        else:
            method.planned(facts)
        if method.has_membrane_loss:
            loss = method.membrane_loss(facts, mean=facts.full(0.0), variance=facts.full(1.0))
            method._check("a loss", loss, allowed=((),))
        for name, value in method.quantities().items():
            method._check(f"the quantity '{name}'", value, allowed=((),))
        if method.differences is not None:
            method.take(method.candidates()[0])
        if method.has_current_loss:
            method._check("a loss", method.current_loss(facts, torch.zeros_like(facts.scalar)), allowed=((),))
