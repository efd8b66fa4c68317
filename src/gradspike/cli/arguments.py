"""Arguments of the commands that take `key=value` without Hydra, and how every command reports an error."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradspike.config.validate import explain
from gradspike.errors import ConfigError, Interrupted, OutputClosed, UserError, did_you_mean
from gradspike.registry import Strict


def reporting_errors(action: Callable[[], int]) -> int:
    """Run `action`; turn a UserError or a signal into one message on standard error and its exit code.

    When whoever read the output has gone away, as `| head` does, it ends as other commands do: at once, silently.
    """
    try:
        return _tried(action)
    except OutputClosed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python has still to write at its end
        return 128 + signal.SIGPIPE
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _tried(action: Callable[[], int]) -> int:
    """One trial: a UserError is told and leaves the other trials alone, anything else ends them all."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError as error:
        if _output_is_closed():
            raise OutputClosed from error
        raise


def _output_is_closed() -> bool:
    """Whether nobody reads our standard output any more; pipes to worker processes can break as well."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def take_flags(words: list[str], flags: tuple[str, ...], usage: str) -> tuple[list[str], set[str]]:
    """The words that are no flags, and which of `flags` are there. --help stays among the words; raises ConfigError for
    any other flag.
    """
    rest, found = [], set()
    for word in words:
        if word in flags:
            found.add(word)
        elif word.startswith("-") and word not in ("-h", "--help"):
            raise ConfigError(f"{word}: there is no such flag.{did_you_mean(word, [*flags, '--help'])}\n\n{usage}")
        else:
            rest.append(word)
    return rest, found


def parse_key_values(words: list[str], schema: type[Strict], usage: str) -> Any:
    """The `key=value` arguments of a command without config groups, validated by `schema`. Prints `usage` and exits on
    --help.
    """
    from pydantic import ValidationError

    if any(word in ("-h", "--help") for word in words):
        print(usage, end="")
        raise SystemExit(0)
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word}: cannot be read. Write key=value.\n\n{usage}")
        if key not in schema.model_fields:
            raise ConfigError(f"{key}: there is no such key.{did_you_mean(key, schema.model_fields)}\n\n{usage}")
        values[key] = value
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = [f"{_key(detail)}: {explain(detail)}" for detail in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems) + f"\n\n{usage}") from error


def _key(detail: Any) -> str:
    """`key=value` of a pydantic mistake, or the bare key where no value was given."""
    key = ".".join(str(part) for part in detail["loc"])
    return key if detail["type"] == "missing" else f"{key}={detail['input']}"


def take_config_dir(words: list[str], usage: str) -> tuple[list[str], str | None]:
    """The words without --config-dir, and its folder. Raises ConfigError for any other flag."""
    rest, folder, waiting = [], None, False
    for word in words:
        if waiting:
            folder, waiting = word, False
        elif word in ("--config-dir", "-cd"):
            waiting = True
        elif word.startswith("--config-dir="):
            folder = word.partition("=")[2]
        elif word.startswith("-"):
            raise ConfigError(f"{word}: there is no such flag.\n\n{usage}")
        else:
            rest.append(word)
    if waiting:
        raise ConfigError(f"--config-dir: which folder?\n\n{usage}")
    return rest, folder


def checked_file(out: str) -> Path:
    """The file to write, known to be writable before anything is computed."""
    path = Path(out).expanduser()
    if not out or path.is_dir():
        raise ConfigError(f"out={out}: must be a file")
    if not path.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {path.parent}")
    return path
