"""The rank of this process in a distributed run, and what starts the other processes. Imports nothing heavy.

By default, gradspike starts a process for each further device of its node. Otherwise srun, torchrun or another program
that sets torchrun's variables starts the processes. Training on one device ignores these variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from gradspike.config.schema import TrainerConfig
from gradspike.errors import ConfigError
from gradspike.shown import counted
from gradspike.started import typed_command
from gradspike.variables import variable, whole_number

PARENT = "GRADSPIKE_PARENT"
"""The parent's process id; set for the processes that gradspike starts."""
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE")
"""How many processes Open MPI, MPICH or Intel MPI, MVAPICH or IBM's jsrun started."""


@dataclass(frozen=True)
class Place:
    """The ranks of a process, and the address of the first process; port 0 means any free port.

    starts_others: whether this process starts the others of its node. started_by_us: whether another gradspike process
    started this one.
    """

    rank: int = 0
    local_rank: int = 0
    node_rank: int = 0
    world_size: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    starts_others: bool = False
    started_by_us: bool = False


ALONE = Place()


def find_place(options: TrainerConfig, command: Sequence[str]) -> Place:
    """The place of this process, read from its environment variables.

    command: the command that started this process, `["gradspike", "train", ...]`. Raises ConfigError, which gives the
    correct command, if the numbers of processes and devices differ.
    """
    env, world = os.environ, options.world_size
    typed = typed_command("train", *command[2:])
    if world > 1 and env.get(PARENT) == str(os.getppid()) and _number(env, "LOCAL_RANK"):
        return _started_by_us(env, options)
    if variable("TORCHELASTIC_RUN_ID", env) and (started := _number(env, "WORLD_SIZE", world)) != world:
        _refuse(f"torchrun started {started}", options, f"Type, without torchrun: {typed}")
    if world > 1 and all(variable(name, env) for name in TORCHRUN) and _number(env, "WORLD_SIZE") == world:
        per_node = _number(env, "LOCAL_WORLD_SIZE", options.devices)
        if per_node != options.devices:
            right = f"--nnodes={options.num_nodes} --nproc-per-node={options.devices}"
            _refuse(f"torchrun started {per_node} of them on this node", options, f"Start torchrun with {right}.")
        return _checked(_started_by_torchrun(env), options, ("RANK", "LOCAL_RANK"))
    tasks = _tasks(env)
    if world > 1 and tasks == 1 and (mpi := next((name for name in MPI if _number(env, name) > 1), None)):
        _refuse(f"mpirun started {_number(env, mpi)} ({mpi})", options, f"Type, without mpirun: {typed}")
    if tasks == 1 or (world == 1 and variable("SLURM_STEP_ID", env) is None):
        return _first(env, options) if world > 1 else ALONE
    launcher = f"srun --nodes={options.num_nodes} --ntasks-per-node={options.devices}"
    srun = typed_command("train", *command[2:], launcher=launcher)
    if tasks != world:
        _refuse(f"this Slurm job has {counted(tasks, 'task')}", options, f"Type: {srun}")
    nodes = _number(env, "SLURM_STEP_NUM_NODES", _number(env, "SLURM_NNODES", options.num_nodes))
    if nodes != options.num_nodes or _number(env, "SLURM_LOCALID") >= options.devices:
        found = f"the {counted(tasks, 'task')} of this Slurm job run on {counted(nodes, 'node')}"
        _refuse(found, options, f"Type: {srun}")
    return _checked(_started_by_srun(env, tasks), options, ("SLURM_PROCID", "SLURM_LOCALID"))


def started_together() -> int:
    """How many processes srun or torchrun started with this command; 1 if neither did."""
    if variable("TORCHELASTIC_RUN_ID") is not None:
        return whole_number("WORLD_SIZE") or 1
    return _tasks(os.environ) if variable("SLURM_STEP_ID") is not None else 1


def srun_hint() -> str:
    """What to do about missing ranks."""
    if variable("SLURM_JOB_ID") is not None:
        return " In a Slurm job, start them with srun --ntasks-per-node=<devices> before the command."
    return ""


def _refuse(found: str, options: TrainerConfig, instead: str) -> NoReturn:
    raise ConfigError(
        f"trainer.devices={options.devices} trainer.num_nodes={options.num_nodes} needs "
        f"{counted(options.world_size, 'process', 'processes')}, but {found}. {instead}"
    )


def _checked(place: Place, options: TrainerConfig, names: tuple[str, str]) -> Place:
    """The place of a process that another program started. Raises ConfigError if the others would wait for it forever.

    names: the variables of its rank among all processes and among those of its node.
    """
    ranks = zip(names, (place.rank, place.local_rank), (place.world_size, options.devices), strict=True)
    for name, rank, count in ranks:
        if rank >= count:
            raise ConfigError(
                f"The environment variable {name}={rank} must be less than {count}, the number of processes"
                f"{'' if name == names[0] else ' of a node'} with trainer.devices={options.devices} "
                f"trainer.num_nodes={options.num_nodes}."
            )
    if place.port == 0:
        raise ConfigError("The environment variable MASTER_PORT=0 must be a port that all processes use, 1 to 65535.")
    return place


def _number(env: Mapping[str, str], name: str, default: int = 0) -> int:
    found = whole_number(name, env)
    return default if found is None else found


def _tasks(env: Mapping[str, str]) -> int:
    """The number of Slurm tasks that run this command; 1 outside a task, as in the shell of salloc."""
    if variable("SLURM_JOB_ID", env) is None or variable("SLURM_PROCID", env) is None:
        return 1
    return _number(env, "SLURM_STEP_NUM_TASKS", _number(env, "SLURM_NTASKS", 1))


def _first(env: Mapping[str, str], options: TrainerConfig) -> Place:
    """The place of a node's first process, which starts the others."""
    if options.num_nodes == 1:
        return Place(world_size=options.world_size, starts_others=True)
    missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if variable(name, env) is None]
    if missing:
        raise ConfigError(
            f"trainer.num_nodes={options.num_nodes}: start the command on each node with srun or torchrun, or set "
            f"{', '.join(missing)} there."
        )
    node = _number(env, "NODE_RANK")
    if node >= options.num_nodes:
        raise ConfigError(
            f"The environment variable NODE_RANK={node} must be less than trainer.num_nodes={options.num_nodes}."
        )
    place = Place(
        rank=node * options.devices,
        node_rank=node,
        world_size=options.world_size,
        address=env["MASTER_ADDR"],
        port=_number(env, "MASTER_PORT"),
        starts_others=True,
    )
    return _checked(place, options, ("RANK", "LOCAL_RANK"))


def _started_by_us(env: Mapping[str, str], options: TrainerConfig) -> Place:
    node = _number(env, "NODE_RANK")
    return Place(
        rank=node * options.devices + _number(env, "LOCAL_RANK"),
        local_rank=_number(env, "LOCAL_RANK"),
        node_rank=node,
        world_size=options.world_size,
        address=env["MASTER_ADDR"],
        port=_number(env, "MASTER_PORT"),
        started_by_us=True,
    )


def _started_by_torchrun(env: Mapping[str, str]) -> Place:
    return Place(
        rank=_number(env, "RANK"),
        local_rank=_number(env, "LOCAL_RANK"),
        node_rank=_number(env, "GROUP_RANK", _number(env, "NODE_RANK")),
        world_size=_number(env, "WORLD_SIZE"),
        address=env["MASTER_ADDR"],
        port=_number(env, "MASTER_PORT"),
    )


def _started_by_srun(env: Mapping[str, str], tasks: int) -> Place:
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    nodes = next((found for name in names if (found := variable(name, env))), "")
    # Several steps of a job may train on the same node, so each needs its own port.
    number = _number(env, "SLURM_JOB_ID") * 10 + _number(env, "SLURM_STEP_ID")
    return Place(
        rank=_number(env, "SLURM_PROCID"),
        local_rank=_number(env, "SLURM_LOCALID"),
        node_rank=_number(env, "SLURM_NODEID"),
        world_size=tasks,
        address=variable("MASTER_ADDR", env) or first_node(nodes),
        port=_number(env, "MASTER_PORT", 15000 + number % 10000),
    )


def first_node(nodes: str) -> str:
    """The first name of a Slurm node list such as `gpu[03-04,07],cpu1`."""
    found = re.match(r"([^\[,\s]*)(?:\[(\w+)[^\]]*\])?", nodes)
    name = found[1] + (found[2] or "") if found else ""
    return name or "127.0.0.1"
