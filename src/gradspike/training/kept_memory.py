"""Memory that tensors release stays with the process, for the tensors of the next step (`trainer.keep_memory`).

glibc gives large blocks back to the system as soon as they are free. The next step asks for them again, and the system
clears each page before it hands it over. That takes a tenth of a step of a large network on a CPU.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

# Parameters of glibc's mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
"""Their names in the environment."""

_PAD_BYTES = 64 << 20
"""By how much the heap grows at least. Smaller steps are more calls of the system, larger ones memory without a use."""


def keep_released_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell the C library to keep released memory, for as long as this process lives.

    Returns whether it does now. It does not if it is not glibc, or if `environment` has settings of its allocator
    (`_SETTINGS`, or `glibc.malloc` in `GLIBC_TUNABLES`), which then hold.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or _has_own_settings(environment):
        return False
    # No block has a mapping of its own, and the end of the heap stays.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _PAD_BYTES))
    return all(mallopt(parameter, value) for parameter, value in settings)


def release_kept_memory() -> None:
    """Give memory that no tensor uses back to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _has_own_settings(environment: Mapping[str, str]) -> bool:
    return any(environment.get(name) for name in _SETTINGS) or "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")
