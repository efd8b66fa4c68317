"""The same training on 1, 2 and 4 processes in float64: how far weights and buffers are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gradspike.methods.registry import METHODS
from helpers.ranks import ROUNDING, States, furthest, train_entries
from storm.table import markdown

VARIANTS = {
    "plain": [],
    "`trainer.accumulate=2`": ["trainer.accumulate=2"],
    "`trainer.ema=0.9`": ["trainer.ema=0.9"],
    "mixup and CutMix": ["loss.mixup=0.4", "loss.cutmix=1"],
    "batches of 200, the last 59 left out": ["dataset.batch_size=200"],
}
STEPS = 20
FAR = 3e-2
"""Less than statistics of each rank alone cause. In float32, rounding can flip a spike at the threshold."""
METHOD_WORDS = {name: [f"method={name}"] for name in METHODS.names()} | {
    "asgl": ["method=asgl", "method.p=0"],  # each rank draws its own noise, as for dropout
    "dspike_adaptive": ["method=dspike_adaptive", "method.weights=3"],  # chooses its width by finite differences
}
"""Every registered method, by the name of its row."""
WITHOUT = {"method.sync_stats=false": "ds_atgo", "norm.sync=false": "psg_pda"}
"""What is computed on each rank alone, with a method for which that makes a difference."""


def case(method: str, variant: str) -> str:
    return f"{method}, {variant}"


def run(folder: Path, say: Callable[[str], None]) -> bool:
    """Train in float64, print the tables, and return whether any number is larger than rounding explains."""
    cases = {
        case(method, name): [*method_words, *words]
        for method, method_words in METHOD_WORDS.items()
        for name, words in VARIANTS.items()
    }
    plain = {case(method, "plain"): cases[case(method, "plain")] for method in METHOD_WORDS}
    entries: dict[str, Mapping[str, Any]] = {
        "one": {"world_size": 1, "cases": cases},
        "two": {"world_size": 2, "cases": cases},
        "four": {"world_size": 4, "cases": cases},
        "formulas": {"world_size": 2, "cases": plain, "engine": "formulas"},
        "alone": {
            "world_size": 2,
            "cases": {case(method, "plain"): [f"method={method}", word] for word, method in WITHOUT.items()},
            "unequal": True,
        },
    }
    states = _trained(folder, entries)
    one = states["one"]
    apart = {name: distances(states[name], one) for name in entries if name != "one"}
    rows = [[f"`{method}`", *(_cell(apart, case(method, variant)) for variant in VARIANTS)] for method in METHOD_WORDS]
    say(markdown(["method", *VARIANTS], rows))
    rows = [[f"`{method}`", f"{apart['formulas'][case(method, 'plain')]:.0e}"] for method in METHOD_WORDS]
    say(f"\n{markdown(['method', '2 ranks, `formulas`'], rows)}")
    rows = [[f"`method={method} {word}`", f"{apart['alone'][case(method, 'plain')]:.0e}"]
            for word, method in WITHOUT.items()]  # fmt: skip
    say(f"\n{markdown(['each rank by itself', '2 ranks'], rows)}")
    together = (apart[name] for name in apart if name != "alone")
    return any(found > ROUNDING for found in _all(together)) or any(found < 1e-6 for found in _all([apart["alone"]]))


def run_compiled(folder: Path, say: Callable[[str], None]) -> bool:
    """The same with compiled neurons in float32. The difference of two engines on one process shows what rounding does.

    Returns whether ranks differ by more than FAR.
    """
    cases = METHOD_WORDS
    single = {"cases": cases, "dtype": "float32"}
    entries: dict[str, Mapping[str, Any]] = {
        "one": {**single, "world_size": 1, "engine": "compiled"},
        "two": {**single, "world_size": 2, "engine": "compiled"},
        "four": {**single, "world_size": 4, "engine": "compiled"},
        "eager": {**single, "world_size": 1, "engine": "eager"},
    }
    states = _trained(folder, entries)
    apart = {name: distances(states[name], states["one"]) for name in ("two", "four", "eager")}
    rows = [[f"`{method}`", *(f"{apart[name][method]:.0e}" for name in apart)] for method in cases]
    say(markdown(["method", "2 ranks", "4 ranks", "1 process, `engine=eager`"], rows))
    return any(found > FAR for found in _all([apart["two"], apart["four"]]))


def _trained(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, States]:
    (folder / "data").mkdir()
    slow = {name: {**entry, "timeout": 1200, "steps": STEPS} for name, entry in entries.items()}
    return train_entries(folder, folder / "data", slow)


def distances(states: States, one: States) -> dict[str, float]:
    """For each case, the largest relative difference to one process."""
    return {name: furthest(state, one[name]) for name, state in states.items()}


def _cell(apart: Mapping[str, Mapping[str, float]], name: str) -> str:
    return f"{apart['two'][name]:.0e} / {apart['four'][name]:.0e}"


def _all(tables: Iterable[Mapping[str, float]]) -> Iterable[float]:
    return (found for table in tables for found in table.values())
