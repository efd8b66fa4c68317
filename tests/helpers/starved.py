"""`python -m helpers.starved HOW gradspike-words...`: a command for which memory ends, or whose loader is killed.

memory=N: once everything is imported, the process may not grow by more than N MiB. killed: each loader process kills
itself at its first batch. A process of its own, because both would end pytest as well.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import lightning  # noqa: F401
import torch
from torch.utils.data import get_worker_info

from gradspike.__main__ import main
from gradspike.data.source import Samples


def starve(how: str) -> None:
    if how == "killed":
        original = Samples.fetch

        def fetch(self: Samples, *arguments: Any) -> Any:
            if get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *arguments)

        Samples.fetch = fetch  # type: ignore[method-assign]
        return
    torch.set_num_threads(1)
    torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3)).sum()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + int(how.partition("=")[2]) * 2**20,) * 2)


if __name__ == "__main__":
    starve(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
