"""The text of a batch script for Slurm that trains one run on one or several nodes."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence

from gradspike.config.overrides import quoted
from gradspike.config.schema import ExperimentConfig
from gradspike.shown import counted
from gradspike.started import child_command, python_path

SECONDS_TO_SAVE = 120

SCRIPT = """\
#!/bin/bash
# Trains {label} on {where}.
# {seconds} s before the time is up, or when the job is preempted, the training saves its state. Slurm queues the
# job again, and it continues its run.
{options}
{setup}
{words}
srun{srun} {command} train "${{words[@]}}"
code=$?
if [ "$code" -eq 138 ]; then  # 128 + SIGUSR1: the time was nearly up and the state is saved
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60  # until Slurm ends this job
fi
exit "$code"
"""

NEW_RUN = """\
runs={runs}/slurm_$SLURM_JOB_ID
run=("$runs"/2*/)
if [ -d "${{run[0]}}" ]; then
    words=("resume="{start}"slurm_$SLURM_JOB_ID${{run[0]#"$runs"}}"{end})
else
    words=({words} "runs_dir="{start}"slurm_$SLURM_JOB_ID"{end})
fi"""


def batch_script(
    config: ExperimentConfig, overrides: Sequence[str], options: Mapping[str, str], setup: Sequence[str]
) -> str:
    """The script.

    config: the configuration to train. overrides: the command-line words that give it. options: further sbatch options
    with their values, empty for switches. setup: lines that the script runs first.
    """
    trainer = config.trainer
    own = {
        "job-name": config.label(),
        "nodes": str(trainer.num_nodes),
        "ntasks-per-node": str(trainer.devices),
        "cpus-per-task": str(max(1, config.dataset.workers)),
        "signal": f"USR1@{SECONDS_TO_SAVE}",
        "requeue": "",
        "open-mode": "append",
        "output": "%x_%j.out",
    }
    on_gpus = trainer.accelerator != "cpu"
    if on_gpus and not any(name.startswith("gpus") or name == "gres" for name in options):
        own["gpus-per-node"] = str(trainer.devices)
    merged = {**own, **options}
    sources = python_path(os.environ).get("PYTHONPATH") or os.environ.get("PYTHONPATH")
    exports = [f"export PYTHONPATH={shlex.quote(sources)}"] if sources else []
    devices = counted(trainer.devices, "GPU") if on_gpus else counted(trainer.devices, "process", "processes")
    nodes = counted(trainer.num_nodes, "node")
    return SCRIPT.format(
        label=config.label(),
        where=f"{nodes} with {devices} each" if trainer.num_nodes > 1 else f"{nodes} with {devices}",
        seconds=SECONDS_TO_SAVE,
        options="\n".join(f"#SBATCH --{name}{f'={_quoted(value)}' if value else ''}" for name, value in merged.items()),
        setup="\n".join(["", *setup, *exports]),
        words=_words(config, overrides),
        # Since Slurm 22.05, srun does not inherit this from sbatch.
        srun=f" --cpus-per-task={merged['cpus-per-task']}",
        command=shlex.join(child_command()),
    )


def _words(config: ExperimentConfig, overrides: Sequence[str]) -> str:
    """Lines that set the command's arguments: a new run in the job's own folder, or `resume=` if it exists."""
    if config.resume is not None:
        return f"words=({shlex.join(overrides)})"
    kept = [word for word in overrides if word.partition("=")[0] != "runs_dir"]
    # Hydra's quotes, which the name of a run never contains; the shell completes the path between them.
    before, end = quoted(f"{config.runs_dir}/")[:-1], "'"
    return NEW_RUN.format(
        runs=shlex.quote(config.runs_dir), start=shlex.quote(before), end=shlex.quote(end), words=shlex.join(kept)
    )


def _quoted(value: str) -> str:
    """Quote a value for an #SBATCH line if needed."""
    return value if re.fullmatch(r"[\w./:@%,=+-]+", value, re.ASCII) else f'"{value}"'
