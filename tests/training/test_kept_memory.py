"""`trainer.keep_memory`: what a step releases is there for the next one, without the system."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from helpers.command import ROOT

COUNT = """
import ctypes, resource
from gradspike.training.kept_memory import keep_released_memory, release_kept_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a huge page is one fault, whatever its size
print(keep_released_memory() if {keep} else None)
page, size = resource.getpagesize(), 48 << 20
for _ in range(2):
    block = bytearray(size)
    del block
if {release}:
    release_kept_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    block = bytearray(size)
    del block
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * page / size)
"""

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")


def count(keep: bool = True, release: bool = False, **environment: str) -> tuple[str, float]:
    """What `keep_released_memory` returned, and how many of four blocks the system had to hand over."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own |= {"PYTHONPATH": str(ROOT / "src"), **environment}
    code = COUNT.format(keep=keep, release=release)
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True)
    said, blocks = done.stdout.split()
    return said, float(blocks)


def test_released_memory_is_used_again() -> None:
    assert count(keep=False)[1] > 3.5
    said, blocks = count()
    assert said == "True"
    assert blocks < 0.1


def test_kept_memory_can_be_released() -> None:
    assert 0.9 < count(release=True)[1] < 1.1


@pytest.mark.parametrize(
    "own", [{"MALLOC_MMAP_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}]
)
def test_the_settings_of_the_environment_win(own: dict[str, str]) -> None:
    said, blocks = count(**own)
    assert said == "False"
    assert blocks > 3.5
