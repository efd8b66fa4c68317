"""Figures whose font lacks some letters of a name."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from gradspike.shown import listed

log = logging.getLogger("gradspike")

_MISSING = re.compile(r"Glyph (\d+) .*missing from")


@contextmanager
def naming_missing_letters(figure: str) -> Iterator[None]:
    """Turn matplotlib's warnings in the block, one for each letter without a glyph, into one line about `figure`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing: dict[str, None] = {}
    for warning in caught:
        if found := _MISSING.search(str(warning.message)):
            missing[chr(int(found[1]))] = None
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        log.warning("%s: the font lacks these letters, which are drawn as boxes: %s", figure, listed(missing))
