"""Shapes of the surrogate gradient: pure functions of v = u - theta and the width kappa.

Every shape has area 1 over v and height h(0) = 1 / kappa at the threshold. So kappa has the same meaning for all of
them: the width of the rectangle with the shape's area and height. With z = v / kappa:

    name                   h(v) * kappa                              source
    rectangular            1 if |z| < 1/2 else 0                     Wu et al., Frontiers 2018
    triangular             max(0, 1 - |z|)                           Bellec et al., NeurIPS 2018
    sigmoid                4 sig(4z) (1 - sig(4z))                   derivative of a logistic function
    arctan                 1 / (1 + (pi z)^2)                        Fang et al., ICCV 2021
    fast_sigmoid           1 / (1 + 2 |z|)^2                         SuperSpike: Zenke, Ganguli, Neural Comput. 2018
    gaussian               exp(-pi z^2)                              normal density with std kappa / sqrt(2 pi)
    piecewise_exponential  exp(-2 |z|)                               Shrestha and Orchard, NeurIPS 2018
    dspike                 1 - tanh(c z)^2 if |z| < b / (2c) else 0  Li et al., NeurIPS 2021; b = 3, c = 2 tanh(b / 2)
    asymmetric             1 + 2z if |z| < 1/2 else 0                A2SG: Kang et al., ICML 2026

Dspike is a tanh on a finite support. Its paper keeps the support at 1 and varies the temperature b, so the peak cannot
fall below 1. Here b stays 3: the argument of tanh runs from -b/2 to b/2 across the support, which is b kappa / c =
1.66 kappa wide. The temperature per unit of potential thus follows the width: tanh(c v / kappa) with c = 1.81.

Asymmetric is A2SG's v / (2 beta) + offset on |v| <= beta, for kappa = 2 beta and offset = 1/2, the one that starts at
0. Divided by beta, it has area 1. It is 2 / kappa at its upper end; all other shapes are symmetric, and largest at 0.

Tensors broadcast; values stay finite in float32 for |v| up to 1e4 and kappa down to 1e-3.

Imports no torch, because the options of methods take the names of the shapes from SURROGATES.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from gradspike.errors import ConfigError, did_you_mean
from gradspike.registry import imported

if TYPE_CHECKING:
    from torch import Tensor

    Shape = Callable[[Tensor, Tensor], Tensor]

DSPIKE_TEMPERATURE = 3.0
_DSPIKE_SLOPE = 2 * math.tanh(DSPIKE_TEMPERATURE / 2)
_DSPIKE_HALF_SUPPORT = DSPIKE_TEMPERATURE / (2 * _DSPIKE_SLOPE)


@dataclass(frozen=True)
class Surrogate:
    """One shape: `derivative(v, kappa)` is h >= 0, `primitive(v, kappa)` its integral over v, from 0 to 1.

    `smooth`: h is continuous everywhere, so finite differences of the primitive approximate it at any v. `width`: kappa
    as a function of the second argument, if that is something else.
    """

    name: str
    derivative: Shape
    primitive: Shape
    smooth: bool
    width: Callable[[Tensor], Tensor] | None = None

    def width_derivative(self, v: Tensor, kappa: Tensor) -> Tensor:
        """d primitive / d kappa. Each primitive depends on v / kappa alone, so this is -(v / kappa) h(v)."""
        return -(v / kappa) * self.derivative(v, kappa)


def _rectangular(v: Tensor, kappa: Tensor) -> Tensor:
    # One division for each kappa, where (v.abs() < kappa / 2) / kappa, of the same value, divides for each v.
    return (1 / kappa).where(v.abs() < kappa / 2, 0.0)


def _rectangular_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    return (v / kappa + 0.5).clamp(0, 1)


def _triangular(v: Tensor, kappa: Tensor) -> Tensor:
    return (1 - (v / kappa).abs()).clamp_min(0) / kappa


def _triangular_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    z = (v / kappa).clamp(-1, 1)
    return 0.5 + z - 0.5 * z * z.abs()


def _sigmoid(v: Tensor, kappa: Tensor) -> Tensor:
    s = (4 * v / kappa).sigmoid()
    return 4 * s * (1 - s) / kappa


def _sigmoid_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    return (4 * v / kappa).sigmoid()


def _arctan(v: Tensor, kappa: Tensor) -> Tensor:
    return 1 / (1 + (math.pi * v / kappa).square()) / kappa


def _arctan_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    return (math.pi * v / kappa).atan() / math.pi + 0.5


def _fast_sigmoid(v: Tensor, kappa: Tensor) -> Tensor:
    return 1 / (1 + 2 * (v / kappa).abs()).square() / kappa


def _fast_sigmoid_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    z = v / kappa
    return 0.5 + z / (1 + 2 * z.abs())


def _gaussian(v: Tensor, kappa: Tensor) -> Tensor:
    return (-math.pi * (v / kappa).square()).exp() / kappa


def _gaussian_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    return 0.5 + 0.5 * (math.sqrt(math.pi) * v / kappa).erf()


def _piecewise_exponential(v: Tensor, kappa: Tensor) -> Tensor:
    return (-2 * (v / kappa).abs()).exp() / kappa


def _piecewise_exponential_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    z = v / kappa
    # Not z.abs(), whose gradient at 0 is 0, where that of this primitive is 1.
    tail = 0.5 * (-2 * z.where(z >= 0, -z)).exp()
    return tail.where(z < 0, 1 - tail)


def _dspike(v: Tensor, kappa: Tensor) -> Tensor:
    z = v / kappa
    return (1 - (_DSPIKE_SLOPE * z).tanh().square()) * (z.abs() < _DSPIKE_HALF_SUPPORT) / kappa


def _dspike_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    return ((_DSPIKE_SLOPE * v / kappa).tanh() / _DSPIKE_SLOPE + 0.5).clamp(0, 1)


def _unit_dspike(v: Tensor, temperature: Tensor) -> Tensor:
    peak = temperature / (2 * (temperature / 2).tanh())
    return peak * (1 - (temperature * v).tanh().square()) * (v.abs() <= 0.5)


def _unit_dspike_primitive(v: Tensor, temperature: Tensor) -> Tensor:
    return (temperature * v.clamp(-0.5, 0.5)).tanh() / (2 * (temperature / 2).tanh()) + 0.5


def _asymmetric(v: Tensor, kappa: Tensor) -> Tensor:
    return (1 + 2 * v / kappa) * (v.abs() < kappa / 2) / kappa


def _asymmetric_primitive(v: Tensor, kappa: Tensor) -> Tensor:
    return (v / kappa + 0.5).clamp(0, 1).square()


UNIT_DSPIKE = Surrogate(
    "unit_dspike",
    _unit_dspike,
    _unit_dspike_primitive,
    smooth=False,
    width=lambda temperature: 2 * (temperature / 2).tanh() / temperature,
)
"""Dspike as in its paper: on the support |v| <= 1/2, with the temperature as second argument (of tanh, per unit of v).
Not an option of methods, because its second argument is no width."""

SURROGATES: dict[str, Surrogate] = {
    shape.name: shape
    for shape in (
        Surrogate("rectangular", _rectangular, _rectangular_primitive, smooth=False),
        Surrogate("triangular", _triangular, _triangular_primitive, smooth=True),
        Surrogate("sigmoid", _sigmoid, _sigmoid_primitive, smooth=True),
        Surrogate("arctan", _arctan, _arctan_primitive, smooth=True),
        Surrogate("fast_sigmoid", _fast_sigmoid, _fast_sigmoid_primitive, smooth=True),
        Surrogate("gaussian", _gaussian, _gaussian_primitive, smooth=True),
        Surrogate("piecewise_exponential", _piecewise_exponential, _piecewise_exponential_primitive, smooth=True),
        Surrogate("dspike", _dspike, _dspike_primitive, smooth=False),
        Surrogate("asymmetric", _asymmetric, _asymmetric_primitive, smooth=False),
    )
}


@cache
def surrogate_of(name: str) -> Surrogate:
    """The shape of a name, or of an import path such as `my_file:SHAPE`.

    Raises ConfigError if it cannot be imported, is no Surrogate, or contradicts itself.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute:
        return SURROGATES[name]
    names = vars(imported("surrogate", name, module_name))
    if attribute not in names:
        shapes = [key for key, value in names.items() if isinstance(value, Surrogate)]
        raise ConfigError(f"surrogate '{name}': {module_name} has no '{attribute}'.{did_you_mean(attribute, shapes)}")
    shape = names[attribute]
    if not isinstance(shape, Surrogate):
        raise ConfigError(f"surrogate '{name}' must be a gradspike.surrogate.Surrogate.")
    _check(shape, name)
    return shape


def _check(shape: Surrogate, name: str) -> None:
    """Raise ConfigError unless `derivative` and `width_derivative` are those of the primitive.

    Compiled kernels use them, and the reference engine differentiates the primitive of most neurons.
    """
    import torch

    v = torch.linspace(-2, 2, 81, dtype=torch.float64) + 0.003
    kappa, step = torch.full_like(v, 0.7), 1e-6
    slopes = {
        "derivative": (shape.primitive(v + step, kappa) - shape.primitive(v - step, kappa), shape.derivative(v, kappa)),
        "width_derivative": (
            shape.primitive(v, kappa + step) - shape.primitive(v, kappa - step),
            shape.width_derivative(v, kappa),
        ),
    }
    for what, (difference, given) in slopes.items():
        wrong = (difference / (2 * step) - given.to(v.dtype)).abs() > 1e-4 * given.abs().max()
        if given.shape != v.shape or int(wrong.sum()) > 4:  # a few points may lie next to a corner
            where = float(v[wrong][0]) if wrong.shape == v.shape else 0.0
            raise ConfigError(
                f"surrogate '{name}': its {what} is not that of its primitive, for example at v = {where:.3f}, kappa = "
                "0.7. The primitive must be the integral of the derivative, and a function of v / kappa."
            )
    at_zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(shape.primitive(at_zero, kappa[:1]).sum(), at_zero)
    near = torch.tensor([-1e-9, 0.0, 1e-9], dtype=torch.float64)  # the derivative may jump at 0
    if not (slope - shape.derivative(near, kappa[:3])).abs().le(1e-4 * slopes["derivative"][1].abs().max()).any():
        raise ConfigError(
            f"surrogate '{name}': at v = 0, torch differentiates its primitive to {slope.item():.4g}, which is not its "
            "derivative. abs and clamp have gradient 0 at a tie; use torch.where."
        )
