"""The file of finished points: settings on the first line, then one line per point, written when it is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from gradspike.errors import UserError
from gradspike.exhausted import not_written
from gradspike.json_text import to_json
from gradspike.locks import Taken, lock_if_possible
from gradspike.tools.landscape.numbers import Point

NAME = "points.jsonl"


class PointsFile:
    """A context manager for one process at a time. `done` maps the number of a finished point to its values.

    An incomplete last line, left by a kill, is dropped. Raises UserError if the file is damaged in another way, has
    other settings, is in use by another process, or cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], total: int, restart: bool) -> None:
        self.path = folder / NAME
        self.total = total
        self.done: dict[int, Point] = {}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self.path.open("a+b")
        try:
            self._lock()
            if restart:
                self._file.truncate(0)
            self._read(settings)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> PointsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, index: int, point: Point) -> None:
        """Store a finished point."""
        self._write({"point": index, "loss": point.loss, "accuracy": point.accuracy})
        self.done[index] = point

    def grid(self) -> list[Point]:
        """All points in order. None may be missing."""
        return [self.done[index] for index in range(self.total)]

    def _close(self) -> None:
        with suppress(OSError):  # on a full disk, closing fails as the write did, which is reported
            self._file.close()

    def _lock(self) -> None:
        try:
            lock_if_possible(self._file, "Do not start this landscape twice.")
        except Taken as error:
            raise UserError(f"{self.path}: another process is computing this landscape.") from error

    def _read(self, settings: dict[str, Any]) -> None:
        self._file.seek(0)
        whole, newline, torn = self._file.read().rpartition(b"\n")
        if not newline:
            # The process was killed while writing the first line, or this is a different file.
            if not _line(settings).startswith(torn):
                raise self._damaged()
            self._file.truncate(0)
            self._write(settings)
            return
        try:
            first, *lines = [json.loads(line) for line in whole.split(b"\n")]
        except ValueError as error:
            raise self._damaged() from error
        if not isinstance(first, dict):
            raise self._damaged()
        differences = [
            f"  {key}: was {to_json(first.get(key))}, is now {to_json(settings.get(key))}"
            for key in sorted(first.keys() | settings.keys())
            if first.get(key) != settings.get(key)
        ]
        if differences:
            raise UserError(
                f"{self.path}: contains points computed with other settings:\n" + "\n".join(differences) + "\n"
                "Discard them with restart=true, or keep both with out=<another folder>."
            )
        for line in lines:
            index, point = self._point(line)
            self.done[index] = point
        self._file.truncate(len(whole) + len(newline))

    def _point(self, line: Any) -> tuple[int, Point]:
        if not isinstance(line, dict) or line.keys() != {"point", "loss", "accuracy"}:
            raise self._damaged()
        index, loss, accuracy = line["point"], line["loss"], line["accuracy"]
        if not (isinstance(index, int) and 0 <= index < self.total and _finite(accuracy)):
            raise self._damaged()
        if not (loss is None or _finite(loss)):
            raise self._damaged()
        return index, Point(loss, accuracy)

    def _write(self, value: dict[str, Any]) -> None:
        with writing(self.path.parent):
            self._file.write(_line(value))
            self._file.flush()

    def _damaged(self) -> UserError:
        return UserError(f"{self.path}: is damaged. Start again with restart=true.")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise UserError for an OSError in the block, which writes to `folder`."""
    try:
        yield
    except OSError as error:
        more = " Choose another folder with out=..."
        raise not_written(folder, error, verb="be written to", more=more) from error


def _line(value: dict[str, Any]) -> bytes:
    return to_json(value).encode() + b"\n"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
