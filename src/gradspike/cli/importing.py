"""Imports without the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import large packages in a sixth less processor time.

    torch, Lightning and what they import are hundreds of thousands of objects that stay until the end. Python's garbage
    collector would look at them many times while their number grows, and during the training; afterwards it does not.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
