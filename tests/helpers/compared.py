"""Copies of trained runs with one thing changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.groups import group_runs


def folder_of(runs: Path, label: str, seed: int) -> Path:
    (found,) = runs.glob(f"*_{label}_digits_spiking_cnn_s{seed}_*")
    return found


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    load, dump = (yaml.safe_load, yaml.safe_dump) if file.suffix == ".yaml" else (json.loads, json.dumps)
    value = load(file.read_text())
    change(value)
    file.write_text(dump(value))


def copied(runs: Path, label: str, seed: int, id_: str) -> Path:
    source = folder_of(runs, label, seed)
    return Path(shutil.copytree(source, source.with_name(source.name.rpartition("_")[0] + f"_{id_}")))


def names_and_seeds(folder: Path, **options: Any) -> dict[str, list[int]]:
    grouping = group_runs(gather([folder]).runs, **options)
    return {group.name: [run.seed for run in group.runs] for group in grouping.groups}
