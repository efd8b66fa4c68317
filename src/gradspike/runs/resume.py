"""The configuration of a resumed run: its own, except for keys that may change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradspike.config.marks import always_shown, touches
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.errors import ConfigError
from gradspike.nested import flat
from gradspike.runs.folder import RunFolder
from gradspike.shown import counted, shown
from gradspike.touches import Touches

PARTS = ("trainer.devices", "trainer.num_nodes", "trainer.accumulate")
"""The parts into which a batch is cut. Their product stays, so that a device sees as many samples at a time."""

EXTENDED = "trainer.max_epochs"
"""The number of epochs, which may grow."""


def resumed_config(run: RunFolder, requested: ExperimentConfig, typed: list[str]) -> ExperimentConfig:
    """The run's configuration, with those typed keys that may change.

    Raises ConfigError that lists what was typed and differs from the run, or that says how devices may change.
    """
    saved = run.config().plain()
    plain, now = run.config().plain(), requested.plain()
    marks = touches(plain) | touches(now)
    free = {key for key, mark in marks.items() if mark in (Touches.SHOWN, Touches.SPEED, Touches.DEVICES)}
    typed_keys = [word.partition("=")[0].lstrip("+~") for word in typed]
    differences = []
    for key in typed_keys:
        if key == "resume":
            continue
        if always_shown(key):
            _put(plain, key, _get(now, key))
            continue
        ours, theirs = dict(flat({key: _get(now, key)})), dict(flat({key: _get(saved, key)}))
        for inner in sorted(ours.keys() | theirs.keys()):
            # A key typed by itself is judged by itself, not once more with its group.
            if ours.get(inner) == theirs.get(inner) or (inner != key and inner in typed_keys):
                continue
            if inner == key == EXTENDED and ours[inner] > theirs[inner]:
                _put(plain, inner, ours[inner])
            elif inner not in free:
                differences.append(f"  {inner}: the run has {theirs.get(inner)}, the command line {ours.get(inner)}")
            elif inner == key or marks[inner] is not Touches.SHOWN:
                _put(plain, inner, ours.get(inner))
    if differences:
        raise ConfigError(
            f"{shown(run.path)}: a resumed run keeps its configuration, but these differ:\n"
            + "\n".join(differences)
            + f"\nLeave them out, or start a new run. Free to change: {', '.join(sorted(_sections(free)))}; and "
            f"{EXTENDED}, to a larger number."
        )
    check_parts(run, plain)
    return validate({**plain, "resume": None}, recorded=True)


def changes(run: RunFolder, config: ExperimentConfig) -> dict[str, list[Any]]:
    """The keys in which a resumed run differs from its start, with both values."""
    before, now = dict(flat(run.config().plain())), dict(flat(config.plain()))
    keys = sorted(before.keys() | now.keys())
    return {key: [before.get(key), now.get(key)] for key in keys if before.get(key) != now.get(key) and key != "resume"}


def statistics_change(run: RunFolder, config: ExperimentConfig) -> str | None:
    """A warning if batch statistics are over another number of samples than at the run's start."""
    before, now = (_samples_of_statistics(one) for one in (run.config(), config))
    if before == now:
        return None
    return (
        f"Batch statistics are over {counted(now, 'sample')} at a time; at the start of the run they were over "
        f"{before}. The result will differ from that of an unchanged run."
    )


def _samples_of_statistics(config: ExperimentConfig) -> int:
    ranks = config.trainer.world_size if config.norm.sync is False else 1
    return config.dataset.batch_size // (config.trainer.accumulate * ranks)


def check_parts(run: RunFolder, plain: dict[str, Any]) -> None:
    """Raise ConfigError with the possible combinations unless the batch is cut into as many parts as before.

    plain: the configuration asked for, which need not be valid.
    """
    before, now = (tuple(_get(values, key) for key in PARTS) for values in (run.config().plain(), plain))
    if before == now or not all(isinstance(one, int) and one > 0 for one in now):
        return
    product = before[0] * before[1] * before[2]
    possible = list(_possible(plain, product))
    if now not in possible:
        ways = [f"  {' '.join(f'{key}={value}' for key, value in zip(PARTS, way, strict=True))}" for way in possible]
        raise ConfigError(
            f"{shown(run.path)}: a resumed run keeps its configuration: {' x '.join(PARTS)} must stay {product}, "
            f"so that each device still gets the same number of samples at a time. Allowed:\n" + "\n".join(ways)
        )


def _possible(plain: dict[str, Any], product: int) -> Iterator[tuple[int, int, int]]:
    """Devices, nodes and parts with this product, on as many nodes as asked for or on one."""
    share = plain["dataset"]["batch_size"] // product
    in_pairs = bool(plain["loss"]["mixup"] or plain["loss"]["cutmix"])
    for nodes in dict.fromkeys((plain["trainer"]["num_nodes"], 1)):
        for devices in range(1, product // nodes + 1):
            mixed = not in_pairs or share % 2 == 0 or devices * nodes == 1
            if product % (devices * nodes) == 0 and mixed:
                yield devices, nodes, product // (devices * nodes)


def _sections(free: set[str]) -> set[str]:
    """The keys, with the section's name in place of its keys if the whole section is free."""
    return {section if always_shown(section := key.partition(".")[0]) else key for key in free}


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value
