"""`gradspike slurm-script`: prints a batch script that trains one run. Imports nothing heavy; needs no Slurm."""

from __future__ import annotations

import io
import sys

from gradspike.cli.arguments import CONFIG_DIR_USAGE, Command, checked_file
from gradspike.cli.resume import requested_config, resumed_path
from gradspike.config.compose import config_dirs, load_config
from gradspike.errors import ConfigError
from gradspike.registry import Strict
from gradspike.runs.files import write_output
from gradspike.runs.newest import AUTO
from gradspike.tools.slurm_script.options import PREFIX, sbatch_options
from gradspike.tools.slurm_script.script import SECONDS_TO_SAVE, batch_script

USAGE = (
    """\
Print a batch script for Slurm that trains one run, on one node or several.

  gradspike slurm-script method=mpd_agl dataset=cifar10 trainer=ddp4 \\
    trainer.num_nodes=2 slurm.partition=gpu slurm.time=24:00:00 \\
    --setup "module load cuda" out=job.sh
  sbatch job.sh

Arguments:
  key=value       any key of `gradspike train` (gradspike train --help)
  slurm.<option>  an option of sbatch, such as slurm.account=abc or slurm.mem=64G; a switch is true or false
  out             a file for the script; without it the script is printed
  --setup LINE    a line that the script runs first; may be given several times
"""
    + CONFIG_DIR_USAGE
    + f"""
{SECONDS_TO_SAVE} s before the time is up, or when the job is preempted, the training saves its state. Slurm queues
the job again, and it continues its run, which is in <runs_dir>/slurm_<job id>.
"""
)


class SlurmScriptConfig(Strict):
    """Arguments of `gradspike slurm-script` beside the keys of `gradspike train`."""

    out: str | None = None


COMMAND = Command("slurm-script", USAGE, keys=SlurmScriptConfig, valued=("--setup",), trains=True)


def slurm_script(words: list[str]) -> int:
    """Print the script for the configuration given by `words`. Returns the exit code."""
    typed = COMMAND.parse(words)
    options = sbatch_options([word for word in typed.overrides if word.startswith(PREFIX)])
    overrides = [word for word in typed.overrides if not word.startswith(PREFIX)]
    setup = typed.flags.get("--setup", [])
    folders = config_dirs(typed.config_dir)
    if (resumed := resumed_path(overrides, folders)) is not None:
        config, _ = requested_config(resumed, overrides, folders)
    else:
        config = load_config(overrides, typed.config_dir)
    if config.resume == AUTO:
        raise ConfigError("resume=auto: the script finds its own run again; leave it out, or name a run.")
    path = None if typed.options.out is None else checked_file("out=", typed.options.out)
    folder = [] if typed.config_dir is None else ["--config-dir", typed.config_dir]
    text = batch_script(config, [*folder, *overrides], options, setup)
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # a file that is redirected, even if the locale is ASCII
            sys.stdout.reconfigure(encoding="utf-8")
        print(text, end="")
    else:
        write_output(path, text, "out=")
        print(f"written: {path}")
    return 0
