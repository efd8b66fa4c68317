"""The wheel in an empty folder without a checkout: it trains, sweeps and compares."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gradspike import __version__
from helpers.command import ROOT, TINY
from helpers.warm import warm_python

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("pip", "setuptools"))), reason="building a wheel needs pip and setuptools"
)

SWEEP = """\
program: src/train.py
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  seed: {values: [0, 1]}
  dataset: {value: digits}
command: ['${env}', '${interpreter}', '${program}', logger=wandb, '${args_no_hyphens}']
"""
BUILD_SDIST = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"


def python(*words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network from a source distribution, as installers do when there is no wheel."""
    copy = tmp_path_factory.mktemp("copy")
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignore, symlinks=True)
    python("-c", BUILD_SDIST, cwd=copy)
    (source,) = (copy / "dist").glob("*.tar.gz")
    built = tmp_path_factory.mktemp("wheel")
    python("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", str(source), cwd=built)
    (file,) = built.glob("*.whl")
    return file


class Installed:
    """An installed wheel, used from another, empty folder."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.place = folder / "packages"
        self.home = folder / "home"
        self.home.mkdir()
        python(
            "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(self.place), str(wheel), cwd=self.home
        )  # fmt: skip

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(self.place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(self.place),
            "WANDB_MODE": "",
            "WANDB_API_KEY": "",
            "NETRC": os.devnull,
            "OMP_NUM_THREADS": "1",
        }
        # A function in the place of the script on the PATH, which it runs; `command gradspike` is the script itself.
        line = f'gradspike() {{ {shlex.join([*warm_python(), str(self.place / "bin" / "gradspike")])} "$@"; }}\n{line}'
        return subprocess.run(
            ["bash", "-c", line], cwd=self.home, env=environment, capture_output=True, text=True, timeout=600
        )

    def types(self, line: str) -> str:
        done = self.shell(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


def test_the_wheel_holds_every_file_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        for name in inside:
            assert archive.read(name) == (ROOT / "src" / name).read_bytes(), name
    suffixes = {".py", ".typed", ".js", ".css", ".html"}
    package = ROOT / "src" / "gradspike"
    there = {file for file in package.rglob("*") if file.suffix in suffixes}
    there |= {package / "conf" / file.relative_to(ROOT / "conf") for file in (ROOT / "conf").rglob("*.yaml")}
    assert inside == {str(file.relative_to(ROOT / "src")) for file in there}
    assert any(name.endswith("conf/method/mpd_agl.yaml") for name in inside)
    assert any(name.endswith("page/app.js") for name in inside)


@pytest.fixture(scope="module")
def trained(installed: Installed) -> str:
    """What a training on two processes printed."""
    tiny = shlex.join([*TINY, "trainer.max_epochs=1", "trainer.devices=2", "trainer.progress=lines"])
    return installed.types(f"gradspike train dataset=digits runs_dir='runs (2)' {tiny}")


def test_it_evaluates_sweeps_and_compares(installed: Installed, trained: str) -> None:
    code = "import gradspike, pathlib; print(pathlib.Path(gradspike.__file__).parents[1])"
    assert installed.types(f"python -c '{code}'").strip() == str(installed.place)
    assert installed.types("command gradspike --version") == f"gradspike {__version__}\n"

    following = re.search(r"^next: (.*)$", trained, flags=re.MULTILINE)
    assert following
    assert following[1].startswith("gradspike evaluate 'run=runs (2)/")
    assert "accuracy" in installed.types(following[1])

    tiny = shlex.join([*TINY, "trainer.max_epochs=1"])
    (installed.home / "mine.yaml").write_text(SWEEP)
    commands = installed.types(f"gradspike sweep mine.yaml --dry-run {tiny}").splitlines()
    assert len(commands) == 2
    assert all(line.startswith("gradspike train ") for line in commands)
    assert "2 trials: 2 finished" in installed.types(f"gradspike sweep mine.yaml {tiny}")
    installed.types("gradspike compare runs --sweep runs/sweeps/mine --out page.html")
    page = (installed.home / "page.html").read_text(encoding="utf-8")
    assert "mpd_agl" in page
    assert "<script" in page


def test_processes_that_train_together_start_each_other(installed: Installed, trained: str) -> None:
    """The second DDP process is started with the first process's arguments."""
    assert trained.count("epoch 1/1") == 1
    assert len(list((installed.home / "runs (2)").iterdir())) == 1
