"""Pages of the documentation and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from helpers.command import ROOT

DOCS = ROOT / "docs"


FILE = re.compile(r"# file: (\S+)\n")


class Block(NamedTuple):
    section: str
    language: str
    path: str | None
    text: str


def blocks(page: str) -> Iterator[Block]:
    for part in re.split(r"^## ", page, flags=re.MULTILINE):
        section = part.partition("\n")[0]
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL):
            marker = FILE.match(text)
            yield Block(section, language, marker and marker[1], text[marker.end() :] if marker else text)
