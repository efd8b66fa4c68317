"""Compose each configuration once in a test process: Hydra takes a tenth of a second, and tests ask thousands of times.

Folders of data and runs differ in each test and decide nothing else, so they are filled in afterwards.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradspike.config import compose

PLACES = re.compile(r"(data_dir|runs_dir)=(/[\w/.-]+)")
"""An absolute path that Hydra reads as it stands."""
ANYWHERE = "/composed/once"

Compose = Callable[..., dict[str, Any]]


def compose_once(composes: Compose) -> Compose:
    """`compose_plain` that remembers its results; each caller gets a copy. Errors are raised anew."""
    known: dict[Any, dict[str, Any]] = {}

    def compose_plain(words: list[str], folders: list[Path], config_name: str = "config") -> dict[str, Any]:
        # Options of other folders may change, and trainer=ddp counts the GPUs.
        if folders != [compose.CONF_DIR] or any(word.startswith("trainer=") for word in words):
            return composes(words, folders, config_name)
        last = {word.partition("=")[0]: word for word in words}  # the last word of a key counts
        places = dict(found.groups() for word in last.values() if (found := PLACES.fullmatch(word)))
        key = (
            config_name,
            *(f"{word.partition('=')[0]}={ANYWHERE}" if PLACES.fullmatch(word) else word for word in words),
        )
        if key not in known:
            known[key] = composes(list(key[1:]), folders, config_name)
        return copy.deepcopy(known[key]) | places

    return compose_plain
