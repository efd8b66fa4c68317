"""Shared fixtures: configurations of tiny networks and one data folder for the whole session."""

from __future__ import annotations

import functools
import gc
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# torch.compile imports setuptools, which refuses to be imported once something has imported pip.
import setuptools  # noqa: F401

from gradspike.config import compose
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from helpers.command import ROOT, TINY
from helpers.composed import compose_once
from helpers.merged_files import merge_files_once

if TYPE_CHECKING:
    from gradspike.engine.base import Engine

# Under nohup or in the background of a script, these are ignored, and programs that tests start and stop would inherit
# that. A handler that does nothing is not inherited.
for signum in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(signum) == signal.SIG_IGN:
        signal.signal(signum, lambda *_: None)

gc.disable()  # until all tests are collected; what is imported for them stays
os.environ.pop("COLUMNS", None)  # of a terminal, or pytest-xdist's; commands print tables for a pipe
# torch otherwise compiles a program for each instruction set of the machine, to see whether the compiler knows it.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="gradspike-tests-")  # parts trained with; see config.trust

merge_files_once()
compose.compose_plain = compose_once(compose.compose_plain)

# The files with the longest tests and groups come first, the longest of all at the head, so that no process waits long
# for another's last one.
LONGEST = ("test_sweep_runs.py", "test_ranks.py", "test_engine_triton.py", "test_wheel.py", "test_together.py")
LONGEST += ("test_guides.py", "test_exhausted.py", "test_prepare.py", "test_bench_step.py", "test_landscape.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first."""

    def place(item: pytest.Item) -> int:
        if group_of(item.nodeid) in SHARED:
            return 0
        return 1 + (LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at modules and tests again and again."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute groups of tests among the processes of `pytest -n`."""
    from xdist.scheduler import LoadScopeScheduling

    # xdist's own groups (`--dist loadgroup`) are lost with pytest 9.2, which no longer reads the ids that xdist writes.
    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


SHARED = ("compiled", "compared_runs")
"""Groups of tests of several files: those with compiled neurons, of which each kernel takes seconds, and those that use
the trained runs of the fixture below.
"""


def group_of(nodeid: str) -> str:
    """The group of a test, which runs in one process: what its tests share is made once."""
    file = nodeid.partition("::")[0]
    text = text_of(file)
    if 'scope="module"' in text or "fork_server(**" in text:  # a server of its own takes seconds to start
        return file
    if re.search(r"[\[-]compiled[\]-]|/test_(compiled_)?engines?\.py", nodeid):
        return "compiled"
    return "compared_runs" if "compared_runs" in text or "helpers.compared" in text else nodeid


@functools.cache
def text_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data, where there is some: the folder GRADSPIKE_DATA names, or shared/data beside the project."""
    folder = Path(os.environ.get("GRADSPIKE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set GRADSPIKE_DATA)")
    return folder


@pytest.fixture
def tiny(data_dir: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides of a training that takes a second; more may be given."""

    def overrides(*more: str) -> list[str]:
        return [*TINY, f"data_dir={data_dir}", f"runs_dir={tmp_path / 'runs'}", *more]

    return overrides


@pytest.fixture
def tiny_config(tiny: Callable[..., list[str]]) -> Callable[..., ExperimentConfig]:
    return lambda *more: load_config(tiny(*more))


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine of a mark in `engines`, used for new layers too."""
    from helpers.engines import ENGINES

    run = ENGINES[request.param]
    monkeypatch.setattr("gradspike.spiking_norm.load_engine", lambda name: run)
    return run


@pytest.fixture
def compiled_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engine=compiled compute its formulas as they are: the same tensors are kept, and no kernel is compiled."""
    from gradspike import spiking_norm
    from helpers.engines import ENGINES

    load = spiking_norm.load_engine
    monkeypatch.setattr("gradspike.training.build.choose_engine", lambda name, device: name)
    monkeypatch.setattr(
        spiking_norm, "load_engine", lambda name: ENGINES["formulas"] if name == "compiled" else load(name)
    )


@pytest.fixture(scope="session")
def compared_runs(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder with seven trained runs: fixed_sg and mpd_agl over seeds 0 to 2, and the ReLU twin over seed 0.

    For tests to read; those that break runs copy it.
    """
    from gradspike.training import run as training

    folder = tmp_path_factory.mktemp("compared")
    options = [*TINY, "model.pool=max", "trainer.max_epochs=2", "time_steps=2", "probe.every_n_steps=15"]
    options += [f"data_dir={data_dir}", f"runs_dir={folder / 'runs'}"]
    for words in (["method=fixed_sg"], ["method=mpd_agl"], ["method=mpd_agl", "model.activation=relu"]):
        for seed in (0, 1, 2) if len(words) == 1 else (0,):
            typed = [*options, *words, f"seed={seed}"]
            training.train(load_config(typed), None, ["gradspike", "train", *typed])
    return folder / "runs"
