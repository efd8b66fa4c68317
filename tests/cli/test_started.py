"""Printed commands work in the user's shell, and child processes run the same code."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradspike import started
from gradspike.config.compose import load_config
from gradspike.config.overrides import override
from helpers.command import ROOT


@pytest.mark.parametrize(
    "path",
    ["/tmp/a b=c/run", "/tmp/it's", "/tmp/a,b", "/tmp/José (lab)", "2025", "007", "1e3", "null", "/tmp/${x}", "/t\\'"],
)
def test_a_printed_command_survives_the_shell_and_hydra(path: str) -> None:
    words = shlex.split(started.typed_command("train", override("resume", path)))
    assert words[-2] == "train"
    assert load_config(words[-1:]).resume == path


def test_words_that_need_no_quotes_have_none() -> None:
    assert started.typed_command("evaluate", "run=runs/a_b-1", "split=test").endswith(
        "gradspike evaluate run=runs/a_b-1 split=test"
    )
    assert override("resume", "runs/2026-01-01_10-00-00_a_s0") == "resume=runs/2026-01-01_10-00-00_a_s0"


def test_a_launcher_stands_after_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`srun PYTHONPATH=src python` looks for a program of that name."""
    monkeypatch.setattr(sys, "argv", ["__main__.py"])
    monkeypatch.setattr(started, "_as_module", lambda: True)
    for importable, first in ((True, "srun"), (False, "PYTHONPATH=")):
        monkeypatch.setattr(started, "_importable", lambda found=importable: found)
        words = shlex.split(started.typed_command("train", "seed=1", launcher="srun --ntasks=2"))
        assert words[0].startswith(first)
        assert words[words.index("srun") + 1] == "--ntasks=2"
        assert words[-4:] == ["-m", "gradspike", "train", "seed=1"]


def copy_of_the_checkout(folder: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in ("src", "conf"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore, symlinks=True)
    return folder


def next_command(program: list[str], cwd: Path, **environment: str) -> str:
    """The command that a process started this way prints for the user."""
    code = "from gradspike.started import typed_command; print(typed_command('evaluate', 'run=x'))"
    file = cwd / "src" / "gradspike" / "tools" / "compare" / "command.py"
    file.write_text(f"def compare(words):\n    {code}\n    return 0\n")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*program, "compare"], cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_printed_commands_have_the_form_in_which_gradspike_was_started(tmp_path: Path) -> None:
    """Started as a module, as the console script on the PATH, and as a console script elsewhere."""
    copy = copy_of_the_checkout(tmp_path)
    scripts = tmp_path / "bin"
    scripts.mkdir()
    script = scripts / "gradspike"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom gradspike.__main__ import main\nsys.exit(main())\n")
    script.chmod(0o755)
    source = {"PYTHONPATH": str(copy / "src")}
    python = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    assert next_command(["python", "-m", "gradspike"], copy, **source, **python) == (
        "python -m gradspike evaluate run=x"
    )
    assert next_command([str(script)], copy, **source, PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}") == (
        "gradspike evaluate run=x"
    )
    assert next_command([str(script)], copy, **source) == "bin/gradspike evaluate run=x"


def test_a_process_that_trains_by_itself_has_no_place_among_others() -> None:
    place = [
        "RANK",
        "LOCAL_RANK",
        "GROUP_RANK",
        "NODE_RANK",
        "ROLE_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "GROUP_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_USE_AGENT_STORE",
        "PMI_RANK",
        "OMPI_COMM_WORLD_RANK",
        "GRADSPIKE_PARENT",
        "JSM_NAMESPACE_RANK",
        "SLURM_JOB_ID",
        "SLURM_JOBID",
        "SLURM_STEP_ID",
        "SLURM_STEPID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "SLURM_NTASKS",
        "SLURM_NTASKS_PER_NODE",
        "SLURM_TASKS_PER_NODE",
        "SLURM_TASK_PID",
        "SLURM_NPROCS",
        "SLURM_NNODES",
        "SLURM_JOB_NUM_NODES",
        "SLURM_NODELIST",
        "SLURM_JOB_NODELIST",
        "SLURM_GTIDS",
        "SLURM_SRUN_COMM_HOST",
        "SLURM_CPU_BIND_LIST",
        "WANDB_RUN_ID",
        "WANDB_SWEEP_ID",
        "WANDB_RESUME",
    ]
    kept = [
        "PATH",
        "CUDA_VISIBLE_DEVICES",
        "SLURM_TMPDIR",
        "SLURM_CPUS_PER_TASK",
        "SLURM_JOB_PARTITION",
        "WANDB_PROJECT",
        "RANKS",
    ]
    child = started.child_environment(dict.fromkeys([*place, *kept], "1"))
    assert [name for name in place if name in child] == []
    assert [name for name in kept if name not in child] == []
