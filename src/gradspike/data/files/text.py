"""Reads the text files of a data set, written by any editor or system."""

from __future__ import annotations

import codecs

from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.errors import UserError

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(files: Files, entry: Entry) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark. Raises UserError.

    Split it with `str.splitlines`: the line endings may be from Unix or Windows.
    """
    try:
        content = files.read(entry)
        encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
        return content.decode(encoding)
    except (OSError, ValueError) as error:
        raise UserError(f"{files.shown(entry.name)} cannot be read ({error}).") from error
