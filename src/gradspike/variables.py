"""Reads and checks environment variables. An empty variable counts as not set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from gradspike.errors import ConfigError

WHOLE = re.compile(
    r"RANK|LOCAL_RANK|GROUP_RANK|NODE_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_PORT|JSM_NAMESPACE_RANK"
    r"|SLURM_(JOB_ID|PROCID|LOCALID|NODEID|NTASKS|NNODES|CPUS_PER_TASK|STEP_ID|STEP_NUM_TASKS|STEP_NUM_NODES)"
)
"""Variables that Lightning, torch or gradspike read as whole numbers."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
GPUS = "CUDA_VISIBLE_DEVICES"
LIGHTNING = "PL_TRAINER_"
_EMPTY = re.compile(
    rf"{WHOLE.pattern}|{'|'.join(THREADS)}"
    r"|(WANDB|SLURM|PL|TORCH\w*|PYTORCH\w*|TRITON|NCCL|GLOO|HF|HYDRA|XDG|OMP|GOMP|KMP|MKL|CUBLAS|CUDA(?!_VISIBLE))_\w+"
    r"|MASTER_ADDR|NETRC|HOME|CC|CXX"
)
"""Libraries read an empty one as a name, a path or a number. An empty CUDA_VISIBLE_DEVICES is a value: it hides all
GPUs.
"""
_GPU = re.compile(r"-?\d+|(GPU|MIG)-[\w/-]+|NoDevFiles|none", re.IGNORECASE)


def variable(name: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The value of a variable; None if it is unset, empty or blank."""
    return (os.environ if environment is None else environment).get(name, "").strip() or None


def whole_number(name: str, environment: Mapping[str, str] | None = None) -> int | None:
    """The whole number in a variable; None if it is unset or empty. Raises ConfigError for other text."""
    value = variable(name, environment)
    if value is not None and not value.isdecimal():
        raise ConfigError(f"The environment variable {name}={value} must be a whole number.")
    return None if value is None else int(value)


def unset_empty() -> None:
    """Remove empty variables, which libraries would read as a name, a mode, a path or a number."""
    for name in list(os.environ):
        if _EMPTY.fullmatch(name) and variable(name) is None:
            del os.environ[name]


def draw_into_files() -> None:
    """Set matplotlib's file backend. torchmetrics imports matplotlib, which fails if MPLBACKEND is invalid."""
    os.environ["MPLBACKEND"] = "agg"


def check_for_training() -> None:
    """Check the variables that torch and Lightning read. Raises ConfigError for the first invalid value.

    PL_TRAINER_* is refused, because it would change arguments of Lightning's trainer without a record.
    """
    for name in sorted(os.environ):
        value = variable(name)
        if value is None:
            continue
        if WHOLE.fullmatch(name):
            whole_number(name)
        elif name in THREADS and not re.fullmatch(r"0*[1-9]\d*(\s*,\s*0*[1-9]\d*)*", value):
            raise ConfigError(f"The environment variable {name}={value} must be a number of threads, 1 or more.")
        elif name == GPUS:
            _check_gpus(value)
        elif name.startswith(LIGHTNING):
            raise ConfigError(
                f"The environment variable {name}={value} would change Lightning's trainer without a record. Unset it, "
                "and use the keys trainer.* instead (gradspike train --cfg job)."
            )
    port = whole_number("MASTER_PORT")
    if port is not None and port > 65535:
        raise ConfigError(f"The environment variable MASTER_PORT={port} must be a port, 0 to 65535.")


def _check_gpus(value: str) -> None:
    """Check the list of GPUs. If torch cannot parse it, it silently finds no GPU."""
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if not _GPU.fullmatch(name):
            raise ConfigError(
                f"The environment variable {GPUS}={value} must be numbers or UUIDs of GPUs with commas between them; "
                f"'{name}' is neither."
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"The environment variable {GPUS}={value} names a GPU twice.")
