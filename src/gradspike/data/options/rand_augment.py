"""timm's names of RandAugment policies, such as rand-m9-n1-mstd0.4-inc1. Light: imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

EXAMPLE = "rand-m9-n1-mstd0.4-inc1"
LARGEST_MAGNITUDE = 10
MOST_OPERATIONS = 8
NUMBER = r"\d+(?:\.\d+)?"


OPERATIONS = (
    *("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast"),
    *("Brightness", "Sharpness", "Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"),
)
"""timm's operations that get stronger with the magnitude."""

SETS = {"snn": ("Equalize", "Rotate", "ShearX", "TranslateX", "TranslateY")}
"""Other sets by their names after a t. snn: that of Spikformer's released code for CIFAR (aa_snn.py)."""


@dataclass(frozen=True)
class RandPolicy:
    """magnitude: from 0 to 10. spread: its standard deviation. count: operations of an image. probability: of each.

    operations: the names of those to draw from.
    """

    magnitude: int = LARGEST_MAGNITUDE
    spread: float = 0.0
    count: int = 2
    probability: float = 0.5
    operations: tuple[str, ...] = OPERATIONS


def rand_policy(name: str) -> RandPolicy:
    """The policy of a name, with timm's defaults for what it leaves out. Raises ValueError, without the option's name.

    Only the set of operations that get stronger with the magnitude exists (inc1), which released codes use.
    """
    first, *sections = name.split("-")
    if first != "rand":
        raise ValueError(f"must be the name of a policy as in timm, for example {EXAMPLE}")
    values: dict[str, float] = {}
    chosen = [section[1:] for section in sections if section[1:] in SETS and section[0] == "t"]
    if len(chosen) > 1:
        raise ValueError("has two sets of operations")
    for section in sections:
        if section[1:] in chosen:
            continue
        found = re.fullmatch(rf"(mstd|inc|m|n|p)({NUMBER})", section)
        if found is None:
            raise ValueError(
                f"'{section}' is not understood. Allowed: m, n, mstd, p and inc, each with a number as in timm, and "
                f"tsnn, for example {EXAMPLE}"
            )
        if found[1] in values:
            raise ValueError(f"has '{found[1]}' twice")
        values[found[1]] = float(found[2])
    for key, low, high in (("m", 0, LARGEST_MAGNITUDE), ("n", 1, MOST_OPERATIONS), ("mstd", 0, 100), ("p", 0, 1)):
        value = values.get(key, low)
        if not low <= value <= high:
            raise ValueError(f"{key}{value:g}: must be {low} to {high}")
        if key in "mn" and value != int(value):
            raise ValueError(f"{key}{value:g}: must be a whole number")
    if values.get("inc") != 1:
        raise ValueError(f"needs inc1, the operations that get stronger with the magnitude, as in {EXAMPLE}")
    default = RandPolicy()
    return RandPolicy(
        magnitude=int(values.get("m", default.magnitude)),
        spread=values.get("mstd", default.spread),
        count=int(values.get("n", default.count)),
        probability=values.get("p", default.probability),
        operations=SETS[chosen[0]] if chosen else OPERATIONS,
    )
