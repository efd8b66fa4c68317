"""Writes files completely or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from gradspike.exhausted import not_written
from gradspike.json_text import to_json

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The umask can only be read by setting it.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that nobody ever sees half of it, even if the process is killed."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp's 0600 would exclude the group
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def append_line(path: Path, line: str) -> None:
    """Append a line to a record of a run. Raises UserError if it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise not_written(path, error) from error


def write_record(path: Path, text: str) -> None:
    """Write a file of a run atomically. Raises UserError if it cannot be written; an existing file stays unchanged."""
    write_output(path, text, "")


def write_output(path: Path, content: str | bytes, option: str) -> None:
    """Write the file that the user named by `option` (`out=`, `--out `).

    Raises UserError if it cannot be written; an existing file then stays unchanged.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise not_written(path, error, named=option) from error


def is_read_only(error: BaseException | None) -> bool:
    """Whether a file could not be written because its folder must not be changed."""
    return isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def fast_yaml(text: str) -> Any:
    """`yaml.safe_load` in C where PyYAML has it: ten times as fast, for commands that read many configurations."""
    return yaml.load(text, Loader=_YAML)


def write_json(path: Path, value: Any) -> None:
    """`write_record` of a value as JSON."""
    write_record(path, json_file(value))


def json_file(value: Any) -> str:
    """The text of a JSON file."""
    return to_json(value, indent=2) + "\n"


def overwritten(path: Path, text: str) -> bool:
    """Write over an existing file, in the space that it occupies. Returns whether that worked."""
    try:
        with path.open("r+", encoding="utf-8") as file:
            file.write(text)
            file.truncate()
    except OSError:
        return False
    return True


def check_writable(folder: str, named: str = "") -> None:
    """Create `folder` if it is missing. Raises UserError if it cannot be created or written to.

    named: the option in front of the folder in the message.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise not_written(folder, error, named=named, verb="be written to") from error
