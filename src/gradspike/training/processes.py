"""The processes of a distributed run: their ranks in Lightning, and how they find each other."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed import DistNetworkError, TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from gradspike.errors import UserError
from gradspike.started import child_command, python_path
from gradspike.training.gradients import averaged_in_order, lay_out_like_weights
from gradspike.training.parent_death import dies_with_this_process
from gradspike.training.place import PARENT, Place, srun_hint
from gradspike.training.watch import Watch

log = logging.getLogger("gradspike")

SECONDS_UNTIL_WARNING = 30.0


def is_first_process() -> bool:
    """Whether this process writes and prints."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0


def take_place(place: Place) -> None:
    """Set the rank of this process for `is_first_process` and Lightning.

    Before, Lightning reads RANK, LOCAL_RANK or SLURM_PROCID, which may belong to a surrounding program.
    """
    rank_zero_only.rank = place.rank  # type: ignore[attr-defined]


class Processes(ClusterEnvironment):
    """Adapts a Place to Lightning."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.others_run = not place.starts_others
        self._port = place.port

    @property
    @override
    def creates_processes_externally(self) -> bool:
        return self.others_run

    @property
    @override
    def main_address(self) -> str:
        return self.place.address

    @property
    @override
    def main_port(self) -> int:
        if not self._port:
            with socket.socket() as free:
                free.bind(("", 0))
                self._port = free.getsockname()[1]
        return self._port

    @staticmethod
    @override
    def detect() -> bool:
        return True

    @override
    def world_size(self) -> int:
        return self.place.world_size

    @override
    def set_world_size(self, size: int) -> None:
        assert size == self.place.world_size

    @override
    def global_rank(self) -> int:
        return self.place.rank

    @override
    def set_global_rank(self, rank: int) -> None:
        """Nothing to do: the rank is known."""

    @override
    def local_rank(self) -> int:
        return self.place.local_rank

    @override
    def node_rank(self) -> int:
        return self.place.node_rank


class Launcher(_SubprocessScriptLauncher):
    """Starts `command` again for each further device of this node. These processes die with this one.

    Lightning's own launcher kills this process with SIGKILL, without a message, when another one has died.
    """

    def __init__(self, environment: Processes, devices: int, num_nodes: int, command: Sequence[str], watch: Watch):
        super().__init__(environment, devices, num_nodes)
        self.environment = environment
        self.command = command
        self.watch = watch

    @override
    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self.environment.others_run:
            self.environment.others_run = True  # a test after the training is in the same processes
            self._call_children_scripts()
        return super().launch(function, *args, **kwargs)

    @override
    def _call_children_scripts(self) -> None:
        shared = {
            PARENT: str(os.getpid()),
            "MASTER_ADDR": self.environment.main_address,
            "MASTER_PORT": str(self.environment.main_port),
            "NODE_RANK": str(self.environment.node_rank()),
        }
        for local_rank in range(1, self.num_processes):
            variables = {**os.environ, **python_path(os.environ), **shared, "LOCAL_RANK": str(local_rank)}
            command = child_command(*self.command[1:])
            self.procs.append(subprocess.Popen(command, env=variables, preexec_fn=dies_with_this_process()))
        self.watch.children = self.procs


class PatientDDP(DDPStrategy):
    """DDP whose processes can be stopped while they wait for each other, and which die together.

    store: key-value store of the first process, shared by all. wait_seconds: how long to wait for missing processes.
    command: the command of this process, used to start the others.
    """

    store: TCPStore

    def __init__(self, watch: Watch, wait_seconds: float, command: Sequence[str], broadcast_buffers: bool) -> None:
        super().__init__(broadcast_buffers=broadcast_buffers)
        self.watch = watch
        self.wait_seconds = wait_seconds
        self.command = command

    @override
    def _configure_launcher(self) -> None:
        environment = self.cluster_environment
        assert isinstance(environment, Processes)
        self._launcher = Launcher(environment, self.num_processes, self.num_nodes, self.command, self.watch)

    @override
    def configure_ddp(self) -> None:
        super().configure_ddp()
        assert self.model is not None
        lay_out_like_weights(self.model.parameters())
        if self.root_device.type == "cpu":
            assert isinstance(self.model, DistributedDataParallel)
            self.model.register_comm_hook(None, averaged_in_order)

    @override
    def setup_distributed(self) -> None:
        environment = self.cluster_environment
        assert isinstance(environment, Processes)
        if torch.distributed.is_initialized():
            super().setup_distributed()
            return
        self.store = meet(
            environment.place, environment.main_port, give_up_after=self.wait_seconds, check=self.watch.check_children
        )
        # First: the ranks wait for each other in the setup too, for half an hour if one of them has died.
        self.watch.start(self.store)
        super().setup_distributed()


def meet(
    place: Place,
    port: int,
    give_up_after: float,
    warn_after: float = SECONDS_UNTIL_WARNING,
    check: Callable[[], None] = lambda: None,
) -> TCPStore:
    """Wait until all processes have joined. Logs missing ranks once; raises UserError after `give_up_after` seconds.

    Calls `check`, which may raise, on every poll. torch's own wait is one call, during which Python handles no signals.
    """
    started = time.monotonic()
    warned = False
    store: TCPStore | None = None
    while missing := _missing(store, place):
        check()
        _check_parent(place)
        waited = time.monotonic() - started
        names = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
        if waited > give_up_after:
            raise UserError(
                f"No sign of {names} of {place.world_size} within {waited:.0f} s "
                f"(trainer.wait_seconds={give_up_after:g}).{srun_hint()}"
            )
        # The first process reports; the others know only whether the first one is missing.
        if waited > warn_after and not warned and (place.rank == 0 or store is None):
            warned = True
            log.error(
                "Waiting for %d of %d processes: %s (%.0f s so far).%s",
                len(missing),
                place.world_size,
                names,
                waited,
                srun_hint(),
            )
        store = store or _join(place, port)
        time.sleep(0.05)
    assert store is not None
    return store


def _check_parent(place: Place) -> None:
    """Raise UserError if the parent of this process has ended, for systems that do not kill the child."""
    if place.started_by_us and os.environ.get(PARENT) != str(os.getppid()):
        raise UserError("The first process ended while the others waited.")


def _join(place: Place, port: int) -> TCPStore | None:
    """Join the store of the first process and add this rank; None if that process is not listening yet."""
    hosted_elsewhere = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    first = place.rank == 0 and not hosted_elsewhere
    if not first and not _listens(place.address, port):
        return None
    try:
        store = TCPStore(place.address, port, is_master=first, wait_for_workers=False, multi_tenant=True)
    except DistNetworkError as error:
        if first:
            raise UserError(f"Port {port} is in use: set MASTER_PORT to a free one.") from error
        return None
    store.set(_sign(place.rank), "")
    return store


def _listens(address: str, port: int) -> bool:
    """Whether the first process is listening. torch prints a long message for each failed attempt."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def _missing(store: TCPStore | None, place: Place) -> Sequence[int]:
    """Ranks that have not joined. Until the first process is listening, the state of the others is unknown."""
    if store is None:
        return [0] if place.rank else [place.rank]
    try:
        return [rank for rank in range(place.world_size) if not store.check([_sign(rank)])]
    except DistNetworkError as error:
        raise UserError("The first process ended while the others waited.") from error


def _sign(rank: int) -> str:
    return f"gradspike/{rank}"
