"""CUDA without a GPU: everything that a device whose kernels do nothing can show.

The null GPU is built from a folder of sources, `shared/nullgpu` beside the project or the one that GRADSPIKE_NULLGPU
names: torch, Lightning, Triton and torch.compile take their real CUDA paths with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.methods.registry import METHODS
from gradspike.models.registry import MODELS
from helpers.command import ROOT, execute

pytestmark = pytest.mark.nullgpu

WORKER = ROOT / "tests" / "helpers" / "null_gpu.py"


@pytest.fixture(scope="session")
def null_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built libraries."""
    source = Path(os.environ.get("GRADSPIKE_NULLGPU", ROOT.parent / "shared" / "nullgpu"))
    if not (source / "build.sh").is_file():
        pytest.skip(f"no null GPU: {source} is not there (set GRADSPIKE_NULLGPU)")
    if torch.version.cuda is None:
        pytest.skip("no null GPU: this torch is built without CUDA")
    copy, built = (tmp_path_factory.mktemp(name) for name in ("source", "nullgpu"))
    shutil.copytree(source, copy, dirs_exist_ok=True)
    done = subprocess.run(["bash", copy / "build.sh", sys.executable, built], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the null GPU cannot be built: {done.stderr.strip().splitlines()[-1:]}")
    return built


def run(null_gpu: Path, cache: Path, *words: str, preload: str = "", **variables: str) -> Any:
    libraries = [preload, str(null_gpu / "libnullgpu.so"), str(null_gpu / "libnullblas.so")]
    return execute(
        sys.executable,
        str(WORKER),
        *words,
        timeout=900,
        PYTHONPATH=str(ROOT / "tests"),
        LD_LIBRARY_PATH=str(null_gpu),
        LD_PRELOAD=":".join(filter(None, libraries)),
        NULLGPU="1",
        OMP_NUM_THREADS="1",
        TORCHINDUCTOR_CACHE_DIR=str(cache / "inductor"),
        TRITON_CACHE_DIR=str(cache / "inductor" / "triton"),
        **variables,
    )


@pytest.fixture(scope="module")
def found(null_gpu: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process found; it takes most of the time here."""
    folder = tmp_path_factory.mktemp("work")
    done = run(null_gpu, folder, "all", str(folder))
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    findings: dict[str, Any] = json.loads(lines[0].removeprefix("FOUND "))
    return findings


def test_a_training_on_the_cpu_leaves_cuda_alone(found: dict[str, Any]) -> None:
    assert found["cpu"] == [0, 0, 0, False]


def test_every_network_and_method_steps_deterministically_without_a_wait(found: dict[str, Any]) -> None:
    assert len(METHODS.names()) >= 6
    steps = {name: wrong for name, wrong in found.items() if name.startswith(("eager ", "triton "))}
    assert len(steps) >= len(MODELS.names()) + 2
    assert not any(steps.values()), steps


def test_the_list_of_operations_is_what_torch_refuses(found: dict[str, Any]) -> None:
    assert len(found["refused"]) >= 15
    assert all(found["refused"].values()), found["refused"]


@pytest.mark.parametrize("engine", ["eager", "triton", "compiled"])
def test_a_run_trains_evaluates_and_is_drawn(found: dict[str, Any], engine: str) -> None:
    """A run of engine=triton on a CPU, too."""
    codes = [0, 0, 0] if engine != "triton" else [0, 0, 0, 0, 0]
    assert found[f"train {engine}"] == [*codes, "finished"]


def test_both_passes_are_compiled_alike(found: dict[str, Any]) -> None:
    """No fused multiply-add in either, and both in Inductor's deterministic mode: they fire the same spikes."""
    generated = found["generated"]
    assert generated["kernels"] >= 4
    assert generated["compiled"] >= 4
    assert (generated["fuse"], generated["not deterministic"], generated["fused"]) == (0, 0, 0), generated


def test_a_resumed_run_restores_the_gpus_generator(found: dict[str, Any]) -> None:
    assert found["resumed"] == [0, "finished", True, True]


@pytest.mark.parametrize("engine", ["eager", "triton"])
def test_the_host_never_waits_in_a_step(found: dict[str, Any], engine: str) -> None:
    assert found[f"waits {engine}"] == [0, 0]


def words(folder: Path, *more: str) -> list[str]:
    tiny = ["dataset=digits", "engine=eager", "model.width=4", "model.depth=2", "trainer.max_epochs=1"]
    tiny += ["dataset.batch_size=256", "trainer.progress=none", f"data_dir={folder / 'data'}", f"runs_dir={folder}"]
    return ["main", "train", *tiny, *more]


def test_two_ranks(null_gpu: Path, tmp_path: Path) -> None:
    done = run(null_gpu, tmp_path, *words(tmp_path, "trainer.accelerator=gpu", "trainer.devices=2"), NULLGPU_COUNT="2")
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = tmp_path.glob("2*")
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_an_operation_that_is_not_deterministic_is_refused_before_the_data(null_gpu: Path, tmp_path: Path) -> None:
    network = ["model=timm", "model.name=test_resnet", "+model.options={global_pool: avgmax}", "recipe=none"]
    common = words(tmp_path, "trainer.accelerator=gpu")[:2] + [
        word for word in words(tmp_path, "trainer.accelerator=gpu")[2:] if not word.startswith("model.")
    ]
    done = run(null_gpu, tmp_path, *common, *network)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "adaptive max pooling (adaptive_max_pool2d_backward)" in done.stderr
    assert "trainer.deterministic=false" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "prepared").exists()


@pytest.fixture(scope="module")
def other(null_gpu: Path) -> str:
    """A library that simulates an old driver or GPU."""
    packages = Path(sysconfig.get_paths()["purelib"])
    include = next(packages.glob("triton/backends/nvidia/include/cuda_runtime_api.h")).parent
    library = null_gpu / "libother.so"
    source = WORKER.with_name("other_gpu.c")
    subprocess.run(["gcc", "-fPIC", "-shared", "-w", f"-I{include}", source, "-o", library], check=True)
    return str(library)


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("NULLGPU_DRIVER", "CUDA cannot be used: The NVIDIA driver on your system is too old (found version 11040)"),
        ("NULLGPU_CARD", "an old card has compute capability 6.1, but torch"),
    ],
)
def test_what_is_too_old_is_one_sentence(null_gpu: Path, other: str, tmp_path: Path, variable: str, said: str) -> None:
    old = {variable: "old"}
    done = run(null_gpu, tmp_path, *words(tmp_path, "trainer.accelerator=gpu"), preload=other, **old)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("2*"))
