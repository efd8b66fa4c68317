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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gradspike.methods.registry import METHODS
from gradspike.models.registry import MODELS
from helpers.command import ROOT, execute, variables_of

pytestmark = pytest.mark.nullgpu

WORKER = ROOT / "tests" / "helpers" / "null_gpu.py"
CLIENT = WORKER.with_name("null_gpu_client.py")
PATIENCE = 3600
"""Seconds, for a machine that is busy with something else."""


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
    preloaded(built, "capturing_gpu.cpp", "g++")
    return built


def preloaded(null_gpu: Path, source: str, compiler: str) -> str:
    """The library of a source in tests/helpers, to be preloaded before the null GPU."""
    packages = Path(sysconfig.get_paths()["purelib"])
    include = next(packages.glob("triton/backends/nvidia/include/cuda_runtime_api.h")).parent
    library = (null_gpu / source).with_suffix(".so")
    options = ["-O1", "-fPIC", "-shared", "-w", f"-I{include}"]
    subprocess.run([compiler, *options, WORKER.with_name(source), "-o", library], check=True)
    return str(library)


def environment(null_gpu: Path, preload: str = "") -> dict[str, str]:
    """The variables of a process with the null GPU."""
    names = ("capturing_gpu.so", "libnullgpu.so", "libnullblas.so")
    libraries = [preload, *(str(null_gpu / name) for name in names)]
    return {
        "PYTHONPATH": str(ROOT / "tests"),
        "LD_LIBRARY_PATH": str(null_gpu),
        "LD_PRELOAD": ":".join(filter(None, libraries)),
        "NULLGPU": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # processes that compile take seconds to start
        "TORCHINDUCTOR_CACHE_DIR": str(null_gpu / "inductor"),
        "TRITON_CACHE_DIR": str(null_gpu / "inductor" / "triton"),
        "NULLGPU_SERVER": str(null_gpu / "server"),
    }


@pytest.fixture(scope="module")
def server(null_gpu: Path) -> Iterator[Path]:
    """The null GPU, with a process that has imported everything and starts the others."""
    command = [sys.executable, str(WORKER), "serve", str(null_gpu / "server")]
    variables = variables_of(**environment(null_gpu))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"READY\n"
        yield null_gpu
        process.communicate()


def run(server: Path, *words: str, **variables: str) -> Any:
    """`python WORDS...` with the null GPU."""
    return execute(sys.executable, str(CLIENT), *words, timeout=PATIENCE, **environment(server), **variables)


@pytest.fixture(scope="module")
def found(server: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process found; it takes most of the time here."""
    folder = tmp_path_factory.mktemp("work")
    done = run(server, str(WORKER), "all", str(folder))
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


@pytest.mark.parametrize("engine", ["eager", "triton"])
def test_steps_are_captured_and_replayed(found: dict[str, Any], engine: str) -> None:
    """With every method that can be; nothing but the loss and the optimiser is launched beside the graphs."""
    assert found[f"graphs {engine}"] == {}


def test_a_run_trains_by_graphs(found: dict[str, Any]) -> None:
    assert found["graphs of a run"] == [0, "finished", True, True]


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
    return ["-m", "gradspike", "train", *tiny, *more]


def test_two_ranks(server: Path, tmp_path: Path) -> None:
    done = run(server, *words(tmp_path, "trainer.accelerator=gpu", "trainer.devices=2"), NULLGPU_COUNT="2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Grad strides do not match bucket view strides" not in done.stderr
    (folder,) = tmp_path.glob("2*")
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_an_operation_that_is_not_deterministic_is_refused_before_the_data(server: Path, tmp_path: Path) -> None:
    network = ["model=timm", "model.name=test_resnet", "+model.options={global_pool: avgmax}", "recipe=none"]
    common = [word for word in words(tmp_path, "trainer.accelerator=gpu") if not word.startswith("model.")]
    done = run(server, *common, *network)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "adaptive max pooling (adaptive_max_pool2d_backward)" in done.stderr
    assert "trainer.deterministic=false" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "prepared").exists()


@pytest.fixture(scope="module")
def other(null_gpu: Path) -> str:
    """A library that simulates an old driver or GPU."""
    return preloaded(null_gpu, "other_gpu.c", "gcc")


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("NULLGPU_DRIVER", "CUDA cannot be used: The NVIDIA driver on your system is too old (found version 11040)"),
        ("NULLGPU_CARD", "an old card has compute capability 6.1, but torch"),
    ],
)
def test_what_is_too_old_is_one_sentence(null_gpu: Path, other: str, tmp_path: Path, variable: str, said: str) -> None:
    old = {variable: "old"}
    typed = words(tmp_path, "trainer.accelerator=gpu")
    done = execute(sys.executable, *typed, timeout=PATIENCE, **environment(null_gpu, other), **old)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("2*"))


@pytest.mark.slow
def test_the_check_of_a_gpu_passes_in_one_command(server: Path, tmp_path: Path) -> None:
    """All of its steps, with small networks. Values are garbage here, and are not checked."""
    source = tmp_path / "cifar10"
    for number in range(20):
        for split in ("train", "test"):
            place = source / split / f"class{number % 10}"
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (number, 0, 0)).save(place / f"{number}.png")
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--size", "small", "--out", str(out)]
    command += ["--data", str(source), "--simulated", str(CLIENT), "--jobs", "1"]
    done = execute(*command, timeout=PATIENCE, **environment(server))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 of 11 steps passed." in done.stdout
    assert "Not checked, because the device is simulated:" in done.stdout
    states = {file.stem: json.loads(file.read_text())["state"] for file in out.glob("*.json")}
    assert states == dict.fromkeys(states, "passed")
    assert len(states) == 11
