"""W&B's names of distributions. Distributions that this runner does not support are refused with a reason."""

from __future__ import annotations

from typing import Any

from gradspike.errors import ConfigError, unknown
from gradspike.tools.sweep.normals import LogNormal, Normal, QLogNormal, QNormal
from gradspike.tools.sweep.parameters import Categorical, Constant, Parameter
from gradspike.tools.sweep.ranges import IntUniform, LogUniformValues, QLogUniformValues, QUniform, Uniform

DISTRIBUTIONS: dict[str, type[Parameter]] = {
    "constant": Constant,
    "categorical": Categorical,
    "categorical_w_probabilities": Categorical,
    "int_uniform": IntUniform,
    "uniform": Uniform,
    "q_uniform": QUniform,
    "log_uniform_values": LogUniformValues,
    "q_log_uniform_values": QLogUniformValues,
    "normal": Normal,
    "q_normal": QNormal,
    "log_normal": LogNormal,
    "q_log_normal": QLogNormal,
}

REFUSED = {
    "log_uniform": "its min and max are exponents; write log_uniform_values with the values themselves",
    "q_log_uniform": "its min and max are exponents; write q_log_uniform_values with the values themselves",
    "inv_log_uniform": "not supported by this runner; write log_uniform_values",
    "inv_log_uniform_values": "not supported by this runner; write log_uniform_values",
    "beta": "not supported by this runner; write uniform",
    "q_beta": "not supported by this runner; write q_uniform",
}


def distribution_of(name: str, options: dict[str, Any]) -> type[Parameter]:
    """The class of a parameter, inferred as W&B does if `distribution` is missing. Raises ConfigError."""
    if "parameters" in options:
        inner = next(iter(options["parameters"] or {"key": None}))
        raise ConfigError(
            f"parameters.{name}: is nested. W&B's agent writes it as {name}={{...}}, which Hydra cannot read. Write "
            f"dotted names: {name}.{inner}"
        )
    kind = options.get("distribution")
    if kind in REFUSED:
        raise ConfigError(f"parameters.{name}: distribution={kind}: {REFUSED[kind]}.")
    if kind is not None:
        if kind not in DISTRIBUTIONS:
            raise ConfigError(f"parameters.{name}: {unknown('distribution', str(kind), DISTRIBUTIONS)}")
        return DISTRIBUTIONS[kind]
    if "value" in options:
        return Constant
    if "values" in options:
        return Categorical
    if "min" in options or "max" in options:
        whole = all(type(options.get(end, 0)) is int for end in ("min", "max"))
        return IntUniform if whole else Uniform
    raise ConfigError(f"parameters.{name}: write value: x, values: [x, y], or min: and max:")
