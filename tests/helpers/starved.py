"""Commands for which memory or files end, or whose loader is killed: forks, because both would end pytest as well."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import get_worker_info

from gradspike.data.source import Samples


def starve(how: str) -> None:
    """memory=N: this process may not grow by more than N MiB. file=N: no file may grow beyond N bytes. killed: each
    loader process kills itself at its first batch.
    """
    kind, _, number = how.partition("=")
    if kind == "killed":
        original = Samples.fetch

        def fetch(self: Samples, *arguments: Any) -> Any:
            if get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *arguments)

        Samples.fetch = fetch  # type: ignore[method-assign]
    elif kind == "file":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number),) * 2)
    else:
        torch.set_num_threads(1)
        torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3)).sum()
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + int(number) * 2**20,) * 2)
