"""The database of a study: a SQLite file of any name, or a server by its SQLAlchemy URL."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from gradspike.errors import ConfigError
from gradspike.tools.sweep.sparing import SparingStorage

TRIES_TO_CONNECT = 10
SECONDS_TO_WAIT = 60
SQLITE_OPTIONS = {
    *("timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements", "uri"),
    *("mode", "cache", "immutable", "nolock", "psow", "vfs", "modeof"),
}


def connect(place: str | Path) -> SparingStorage:
    """Open the storage and create its tables. If several runners create them at the same moment, all but one retry.

    Raises ConfigError for a URL that would be misread, else the errors of the database driver.
    """
    url, options = _target(place)
    for _ in range(TRIES_TO_CONNECT):
        try:
            return SparingStorage(url, engine_kwargs=dict(options))
        except Exception as error:
            if not any(word in str(error) for word in ("already exists", "duplicate key", "UNIQUE", "is locked")):
                raise
            time.sleep(1)
    return SparingStorage(url, engine_kwargs=dict(options))


def _target(place: str | Path) -> tuple[str, Mapping[str, Any]]:
    if isinstance(place, Path):
        # Do not put a path into a URL, where ?, %, { and so on are special.
        def opened() -> sqlite3.Connection:
            return sqlite3.connect(place, timeout=SECONDS_TO_WAIT, check_same_thread=False)

        return "sqlite:///study.db", {"creator": opened}
    check_url(place)
    if place.startswith("sqlite"):
        return place, {"connect_args": {"timeout": SECONDS_TO_WAIT}}
    return place, {"pool_pre_ping": True}


def check_url(url: str) -> None:
    """Raise ConfigError for a storage URL of which parts would be silently dropped or misread."""
    if re.search(r"[{}]", url.replace("{SCHEMA_VERSION}", "")):
        raise ConfigError(f"storage={hidden(url)}: must not contain {{ or }}, which Optuna replaces")
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigError(f"storage={hidden(url)}: must be a URL such as sqlite:///study.db or postgresql://host/name")
    _, mark, query = rest.partition("?")
    if not scheme.startswith("sqlite") or not mark:
        return
    options = parse_qsl(query, keep_blank_values=True)
    wrong = next((key for key, _ in options if key not in SQLITE_OPTIONS), None if "=" in query else query)
    if wrong is not None:
        raise ConfigError(
            f"storage={url}: unknown SQLite option '{wrong}' after ?. If ? is part of the file's name, rename the file"
        )


def hidden(place: str | Path) -> str:
    """A storage without its password."""
    url = re.sub(r"(?i)([?&](?:password|passwd|pwd)=)[^&]*", r"\1***", str(place))
    scheme, separator, rest = url.rpartition("@")
    if not separator:
        return url
    user, colon, _ = scheme.rpartition(":")
    return f"{user}:***@{rest}" if colon and "//" in user else url
