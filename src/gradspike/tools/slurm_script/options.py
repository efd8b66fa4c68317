"""`slurm.<option>=<value>`: the options of sbatch that a batch script may set."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gradspike.cli.sbatch import EXCLUSIVE
from gradspike.errors import ConfigError, unknown

PREFIX = "slurm."

WITH_VALUE = frozenset(
    """
    account acctg-freq batch bb bbf begin cluster-constraint clusters comment constraint container core-spec
    cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error exclude
    export extra-node-info gid gpu-bind gpu-freq gpus-per-node gpus-per-socket gres gres-flags hint input job-name
    licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice nodefile
    nodelist ntasks-per-core ntasks-per-socket output partition power prefer priority profile propagate qos
    reservation sockets-per-node switches thread-spec threads-per-core time time-min tmp uid wait-all-nodes wckey
    """.split()  # noqa: SIM905
)

SWITCHES = frozenset(
    """
    contiguous exclusive get-user-env hold no-kill overcommit oversubscribe reboot spread-job use-min-nodes
    """.split()  # noqa: SIM905
)

GIVEN_BY = {
    "nodes": "trainer.num_nodes=...",
    "ntasks": "trainer.devices=... and trainer.num_nodes=...",
    "ntasks-per-node": "trainer.devices=...",
    "ntasks-per-gpu": "trainer.devices=...",
    "gpus": "slurm.gpus_per_node=...",
    "gpus-per-task": "slurm.gpus_per_node=... (every process has to see all GPUs of its node)",
    "signal": "nothing: the script asks for the signal that it handles",
    "requeue": "nothing: the script always asks for it",
    "no-requeue": "nothing: the script needs requeueing",
    "open-mode": "nothing: a job that is queued again appends to its output",
    "setup": "--setup LINE",
    "timeout-min": "slurm.time=<minutes>",
    "mem-gb": "slurm.mem=<size>, such as 64G",
    "additional-parameters": "slurm.<option>=... for each",
    "array": "one script for each run, or `gradspike sweep ... executor=slurm`",
}
"""Options that cannot be set here, and what to use instead; the last ones are those of `gradspike sweep`."""


def sbatch_options(typed: Sequence[str]) -> dict[str, str]:
    """Map the names of sbatch options to values; a switch has an empty value. Raises ConfigError.

    typed: words such as `slurm.partition=gpu`, with `_` or `-` in names.
    """
    options: dict[str, str] = {}
    for word in typed:
        key, _, value = word.partition("=")
        name = key.removeprefix(PREFIX).replace("_", "-")
        if name.partition(".")[0] in GIVEN_BY:
            raise ConfigError(f"{key}: cannot be set here. Use {GIVEN_BY[name.partition('.')[0]]}")
        if name not in WITH_VALUE and name not in SWITCHES:
            raise ConfigError(unknown("option", key, [PREFIX + one.replace("-", "_") for one in WITH_VALUE | SWITCHES]))
        if any(letter in value for letter in '\n\r"\\'):
            raise ConfigError(f"{key}: must be one line without double quotes and backslashes")
        if value in ("", "null"):
            raise ConfigError(f"{key}: must not be empty; leave the option out")
        if name in SWITCHES and value.lower() in ("true", "false"):
            options.pop(name, None)
            if value.lower() == "true":
                options[name] = ""
        elif name in SWITCHES and (name != "exclusive" or value not in EXCLUSIVE):
            others = f", or one of {', '.join(EXCLUSIVE)}" if name == "exclusive" else ""
            raise ConfigError(f"{key}={value}: must be true or false{others}")
        elif name == "cpus-per-task" and not re.fullmatch("0*[1-9][0-9]*", value):
            raise ConfigError(f"{key}={value}: must be a whole number of at least 1")
        else:
            options[name] = value
    return options
