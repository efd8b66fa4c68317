"""Printed commands work for whoever started this one, and child processes run the same code."""

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


def copy_of_the_checkout(folder: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in ("src", "conf"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore, symlinks=True)
    return folder


def next_command(program: list[str], cwd: Path, **environment: str) -> str:
    """What a process that is started in this way tells its user to type."""
    code = "from gradspike.started import typed_command; print(typed_command('evaluate', 'run=x'))"
    file = cwd / "src" / "gradspike" / "tools" / "compare" / "command.py"
    file.write_text(f"def compare(words):\n    {code}\n    return 0\n")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*program, "compare"], cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_it_is_said_in_the_form_in_which_it_was_started(tmp_path: Path) -> None:
    """As a module, as the console script on the PATH, and as one that is not."""
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
