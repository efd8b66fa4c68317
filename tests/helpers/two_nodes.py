"""Two machines with a network between them, as two network namespaces of this one. For root on Linux."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helpers.command import variables_of

ADDRESSES = ("10.77.0.1", "10.77.0.2")
INTERFACE = "node"


class Nodes:
    """The machines 0 and 1. Each has its own loopback, and one interface to the other."""

    def __init__(self) -> None:
        self._names = [f"gradspike-{os.getpid()}-{number}" for number in (0, 1)]

    @contextmanager
    def connected(self) -> Iterator[Nodes]:
        """Skips the test where namespaces are not permitted."""
        with ExitStack() as stack:
            try:
                for name in self._names:
                    _ip("netns", "add", name)
                    stack.callback(_ip, "netns", "delete", name)
                one, other = self._names
                _ip("link", "add", INTERFACE, "netns", one, "type", "veth", "peer", "name", INTERFACE, "netns", other)
                for name, address in zip(self._names, ADDRESSES, strict=True):
                    _ip("-n", name, "address", "add", f"{address}/24", "dev", INTERFACE)
                    for interface in ("lo", INTERFACE):
                        _ip("-n", name, "link", "set", interface, "up")
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"network namespaces are not available: {error}")
            yield self

    def start(
        self, node: int, words: Sequence[str], folder: Path, log: Path, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Run a command on a node in `folder`, which prints into `log`."""
        # The name of this machine is not that of an interface of the nodes, so gloo has to be told which one to use.
        variables = variables_of(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME=INTERFACE, **environment)
        with log.open("wb") as output:
            return subprocess.Popen(
                ["ip", "netns", "exec", self._names[node], *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
            )


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
