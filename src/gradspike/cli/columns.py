"""Help texts at the width of the terminal."""

from __future__ import annotations

import re
import shutil
import textwrap
from itertools import groupby

NARROWEST, WIDEST = 40, 118


def columns() -> int:
    """The width for text: that of the terminal, or COLUMNS; 80 if neither is known."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, NARROWEST), WIDEST)


def fitted(text: str, width: int) -> str:
    """`text` in lines of at most `width`. Paragraphs without an indent are filled, commands end in a backslash where
    they continue, and the second column of a line, after two spaces, continues below itself.

    A second column that starts behind the middle goes on a line of its own.
    """
    lines: list[str] = []
    for indented, group in groupby(text.splitlines(), lambda line: not line or line.startswith(" ")):
        block = list(group)
        if indented or max(map(len, block)) <= width:
            lines += [short for line in block for short in _lines(line, width)]
        else:
            lines += wrapped(" ".join(block), width, "")
    return "".join(f"{line}\n" for line in lines)


def _lines(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = len(line) - len(line.lstrip())
    parts = re.match(r"( *\S+(?: \S+)*) {2,}(?=\S)", line)
    if parts is None:
        start = " " * min(indent, width // 4)
        below = start + "    " * (start != "")
        if not line.lstrip().startswith("gradspike "):
            return wrapped(line.strip(), width, start, below)
        *first, last = wrapped(line.strip(), width - 2, start, below)
        return [*(f"{one} \\" for one in first), last]
    head, second = parts[1], line[parts.end() :]
    if parts.end() > width // 2:
        return [*_lines(head, width), *wrapped(second, width, " " * (indent + 4))]
    return wrapped(second, width, line[: parts.end()], " " * parts.end())


def wrapped(text: str, width: int, first: str, below: str | None = None) -> list[str]:
    """A paragraph in lines of at most `width`; `first` and `below` are put before its first and its other lines."""
    return textwrap.wrap(
        re.sub(r" {3,}", "  ", text),
        width,
        initial_indent=first,
        subsequent_indent=first if below is None else below,
        break_long_words=False,
        break_on_hyphens=False,
    )
