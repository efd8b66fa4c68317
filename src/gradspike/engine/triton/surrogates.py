"""The shapes of `gradspike.surrogate` inside Triton kernels, chosen by name at compile time.

They repeat the formulas of that module, because a kernel cannot call it; tests compare each pair. Triton has no tanh or
atan for both float32 and float64, so tanh is built from the logistic function and atan from its series.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from gradspike.surrogate import DSPIKE_TEMPERATURE

PI = tl.constexpr(math.pi)
ROOT_PI = tl.constexpr(math.sqrt(math.pi))
DSPIKE_SLOPE = tl.constexpr(2 * math.tanh(DSPIKE_TEMPERATURE / 2))
DSPIKE_HALF_SUPPORT = tl.constexpr(DSPIKE_TEMPERATURE / (4 * math.tanh(DSPIKE_TEMPERATURE / 2)))

NAMES = frozenset(
    {
        "rectangular",
        "triangular",
        "sigmoid",
        "arctan",
        "fast_sigmoid",
        "gaussian",
        "piecewise_exponential",
        "dspike",
        "asymmetric",
    }
)


@triton.jit
def derivative(v, kappa, NAME: tl.constexpr):
    """h(v), see `Surrogate.derivative`."""
    z = v / kappa
    if NAME == "rectangular":
        shape = tl.where(tl.abs(v) < kappa / 2, 1.0, 0.0)
    elif NAME == "triangular":
        shape = tl.maximum(1 - tl.abs(z), 0.0)
    elif NAME == "sigmoid":
        s = _sigmoid(4 * z)
        shape = 4 * s * (1 - s)
    elif NAME == "arctan":
        shape = 1 / (1 + (z * PI) * (z * PI))
    elif NAME == "fast_sigmoid":
        root = 1 + 2 * tl.abs(z)
        shape = 1 / (root * root)
    elif NAME == "gaussian":
        shape = tl.exp(-(z * z * PI))
    elif NAME == "piecewise_exponential":
        shape = tl.exp(-2 * tl.abs(z))
    elif NAME == "asymmetric":
        shape = tl.where(tl.abs(v) < kappa / 2, 1 + 2 * z, 0.0)
    else:
        tl.static_assert(NAME == "dspike")
        # 1 - tanh(x)^2 = 4 sig(2x) (1 - sig(2x))
        s = _sigmoid(z * DSPIKE_SLOPE * 2)
        shape = tl.where(tl.abs(z) < DSPIKE_HALF_SUPPORT, 4 * s * (1 - s), 0.0)
    return shape / kappa


@triton.jit
def primitive(v, kappa, NAME: tl.constexpr):
    """The integral of h, see `Surrogate.primitive`."""
    z = v / kappa
    if NAME == "rectangular":
        integral = _clamp(z + 0.5, 0.0, 1.0)
    elif NAME == "triangular":
        inside = _clamp(z, -1.0, 1.0)
        integral = 0.5 + inside - 0.5 * inside * tl.abs(inside)
    elif NAME == "sigmoid":
        integral = _sigmoid(4 * z)
    elif NAME == "arctan":
        integral = _arctan(z * PI) / PI + 0.5
    elif NAME == "fast_sigmoid":
        integral = 0.5 + z / (1 + 2 * tl.abs(z))
    elif NAME == "gaussian":
        integral = 0.5 + 0.5 * tl.erf(z * ROOT_PI)
    elif NAME == "piecewise_exponential":
        tail = 0.5 * tl.exp(-2 * tl.abs(z))
        integral = tl.where(z < 0, tail, 1 - tail)
    elif NAME == "asymmetric":
        root = _clamp(z + 0.5, 0.0, 1.0)
        integral = root * root
    else:
        tl.static_assert(NAME == "dspike")
        # tanh(x) = 2 sig(2x) - 1
        integral = _clamp((2 * _sigmoid(z * DSPIKE_SLOPE * 2) - 1) / DSPIKE_SLOPE + 0.5, 0.0, 1.0)
    return integral


@triton.jit
def _sigmoid(x):
    # exp(-|x|) cannot overflow.
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1 + e)


@triton.jit
def _clamp(x, low, high):
    return tl.minimum(tl.maximum(x, low), high)


@triton.jit
def _arctan(x):
    # atan(x) = 2 atan(x / (1 + sqrt(1 + x^2))). After three such steps |x| < tan(pi / 16), where eleven terms of the
    # series are exact in float64.
    for _ in tl.static_range(3):
        x = x / (1 + tl.sqrt(1 + x * x))
    square = x * x
    series = x * 0.0
    for i in tl.static_range(11):
        series = 1.0 / (21 - 2 * i) - square * series
    return 8 * x * series
