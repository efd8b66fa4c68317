"""Everything of CUDA that a device without kernels shows: `test_null_gpu.py` runs this with the null GPU.

Values are garbage there, so the checks for finite numbers are off. Prints one line of JSON: the findings by name.

    null_gpu.py all FOLDER [PART...]       everything that one process can show, or some parts of it
    null_gpu.py main WORDS...              one command of gradspike, for the other ranks of a run
    null_gpu.py serve SOCKET               start processes for `null_gpu_client.py`, until standard input closes
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import os
import re
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
import torchmetrics.metric
from lightning.pytorch.strategies import ddp

from gradspike import ranks
from gradspike.__main__ import main
from gradspike.collected import collect_losses, watch_first_layer
from gradspike.errors import UserError
from gradspike.methods.registry import METHODS
from gradspike.models.determinism import NOT_DETERMINISTIC, host_takes_part
from gradspike.models.registry import MODELS
from gradspike.runs.code_version import source_digest
from gradspike.runs.folder import RunFolder
from gradspike.tools.landscape import surface
from gradspike.training import module, processes
from gradspike.training.build import input_shape
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.graphed import GraphedNetwork
from gradspike.training.metrics import Meter
from gradspike.training.module import SpikingClassifier
from gradspike.training.parent_death import dies_with_this_process
from gradspike.training.probe.warnings import LayerWarnings
from helpers.networks import build, config_for
from helpers.null_gpu_client import HEADER
from helpers.warm_server import end_with

torch.backends.cudnn.enabled = False  # it asks the driver for more than the null GPU has
for check in ("_check_samples", "_check_network", "_check_loss", "check_weights"):
    setattr(SpikingClassifier, check, lambda *arguments: None)
module.bad_inputs = module.bad_network = lambda *arguments: None
LayerWarnings.potentials = lambda *arguments: None  # it counts values that are not finite
results = Meter.results
Meter.results = lambda self, split: dict.fromkeys(results(self, split), 0.0)
surface.cosine = lambda *arguments: 0.0
# NCCL needs real devices.
ddp._get_default_process_group_backend_for_device = lambda device: "gloo"
# The other ranks need all of this too.
processes.child_command = lambda *words: [sys.executable, __file__, "main", *words]
# Shapes are tensors here, and therefore garbage.
torchmetrics.metric.gather_all_tensors = lambda value, group=None: list(ranks.gathered(value))

TINY = ["model.width=4", "model.depth=2", "dataset=digits", "dataset.batch_size=256", "trainer.progress=none"]
TINY += ["trainer.max_epochs=1", "dataset.eval_batch_size=512"]
TRITON_NETWORKS = ("spiking_cnn", "sew_resnet18")
"""Layers are the same in all networks; these have every kind of layer, and each kernel takes a second to compile."""


class Findings(dict[str, Any]):
    """What was found in the parts whose names begin with one of `only`."""

    def __init__(self, only: list[str]) -> None:
        super().__init__()
        self.only = tuple(only or [""])

    def part(self, name: str, action: Callable[[], Any]) -> None:
        if not name.startswith(self.only):
            return
        start = time.process_time()
        try:
            self[name] = action()
        except Exception as error:
            self[name] = f"{type(error).__name__}: {error}"
        print(f"{name}: {time.process_time() - start:.1f} s", file=sys.stderr, flush=True)


def cpu_leaves_cuda_alone(folder: Path) -> list[Any]:
    words = [*TINY, f"data_dir={folder / 'data'}", f"runs_dir={folder / 'cpu'}", "engine=eager"]
    code = main(["train", *words, "trainer.accelerator=cpu"])
    (run,) = (folder / "cpu").iterdir()
    evaluated = main(["evaluate", f"run={run}", "accelerator=cpu"])
    drawn = main(["landscape", f"run={run}", "accelerator=cpu", "points=3", "samples=32"])
    return [code, evaluated, drawn, torch.cuda.is_initialized()]


def steps(engine: str, network: str) -> dict[str, str]:
    """One deterministic step of a network with every method; what went wrong, by method. No wait is allowed."""
    wrong: dict[str, str] = {}
    for method in METHODS.names():
        config = config_for(network, f"method={method}", f"engine={engine}", "trainer.accelerator=gpu")
        data = config.dataset
        try:
            model = build(config).cuda()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            images = torch.zeros(2, data.channels, data.image_size, data.image_size, device="cuda")
            for number in range(2):
                if number:
                    torch.cuda.set_sync_debug_mode("error")
                optimizer.zero_grad()
                model(images).float().sum().backward()
                optimizer.step()
        except Exception as error:
            wrong[method] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return wrong


def graphed(engine: str, network: str) -> dict[str, str]:
    """Steps of a network as CUDA graphs with every method; what went wrong, by method."""
    wrong: dict[str, str] = {}
    for method in METHODS.names():
        config = config_for(network, f"method={method}", f"engine={engine}", "trainer.accelerator=gpu")
        shape = input_shape(config, 2)
        model = build(config).train()
        drawn = host_takes_part(model, shape)
        try:
            problem = graph_steps(model.cuda(), torch.zeros(shape, device="cuda"))
        except UserError as error:
            problem = "" if drawn and "draws random numbers on the host" in str(error) else str(error)
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        if problem:
            wrong[method] = problem
    return wrong


def graph_steps(model: torch.nn.Module, images: torch.Tensor) -> str:
    """Four steps: plain, captured, and two that are replayed; what is wrong with what was launched."""
    counts = ctypes.CDLL(None)  # of the libraries that are preloaded
    network = GraphedNetwork(model, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    seen = []
    for _ in range(4):
        before = counts.capturing_gpu_kernels(), counts.capturing_gpu_replayed(), counts.nullgpu_launches()
        graph_step(network, optimizer, images)
        after = counts.capturing_gpu_kernels(), counts.capturing_gpu_replayed(), counts.nullgpu_launches()
        seen.append([new - old for old, new in zip(before, after, strict=True)])
    (_, _, plain), (captured, replayed, _), *later = seen
    # Outside the graphs are the loss, its gradient and the optimiser.
    right = 20 < captured == replayed <= plain and all(one[:2] == [0, captured] and one[2] <= 12 for one in later)
    return "" if right else f"captured, replayed and launched in each step: {seen}"


def graph_step(network: GraphedNetwork, optimizer: torch.optim.Optimizer, images: torch.Tensor) -> None:
    """A training step. A function of its own, so that nothing refers to its loss afterwards."""
    with collect_losses() as extra, watch_first_layer():
        loss = network(images).sum() + extra.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def trained_as_graphs(folder: Path) -> list[Any]:
    """A run whose steps are graphs: exit code, state, and whether it has captured and replayed."""
    counts = ctypes.CDLL(None)
    before = counts.capturing_gpu_kernels(), counts.capturing_gpu_replayed()
    words = ["trainer.cuda_graphs=true", "probe.enabled=false", "method=ds_atgo", "trainer.precision=bf16"]
    code, run = run_of(folder, "graphs", "engine=eager", "dataset.batch_size=128", *words)
    captured, replayed = counts.capturing_gpu_kernels() - before[0], counts.capturing_gpu_replayed() - before[1]
    return [code, run.state(), captured > 20, replayed > 4 * captured]


def run_of(folder: Path, name: str, *words: str) -> tuple[int, RunFolder]:
    place = folder / name
    code = main(["train", *TINY, f"data_dir={folder / 'data'}", f"runs_dir={place}", "trainer.accelerator=gpu", *words])
    return code, RunFolder(next(place.glob("2*")))


def trained(folder: Path, engine: str) -> list[Any]:
    """Train, evaluate and draw on the GPU, and with Triton on the CPU too: exit codes and the run's state."""
    code, run = run_of(folder, engine, f"engine={engine}", "method=mpd_agl", "time_steps=2")
    codes = [code]
    for accelerator in ("gpu", "cpu") if engine == "triton" else ("gpu",):
        codes.append(main(["evaluate", f"run={run.path}", f"accelerator={accelerator}"]))
        out = f"out={folder / engine / accelerator}"
        codes.append(
            main(["landscape", f"run={run.path}", f"accelerator={accelerator}", "points=3", "samples=32", out])
        )
    return [*codes, run.state()]


def resumed(folder: Path) -> list[Any]:
    """A run that stops within an epoch, and goes on: exit code, state, and whether the GPU's generator is as saved."""
    original, done = SpikingClassifier.training_step, []

    def failing(self: Any, batch: Any, batch_idx: int) -> Any:
        done.append(batch_idx)
        torch.rand(3, device="cuda")
        if len(done) == 4:
            raise UserError("power failure")
        return original(self, batch, batch_idx)

    SpikingClassifier.training_step = failing
    try:
        assert run_of(folder, "resumed", "engine=eager", "checkpoint.every_n_steps=2")[0] == 1
    finally:
        SpikingClassifier.training_step = original
    run = RunFolder(next((folder / "resumed").glob("2*")))
    saved = load_checkpoint(run.last)["ranks"][0]["random_state"]["cuda"]
    states = []

    def first(self: Any, batch: Any, batch_idx: int) -> Any:
        states.append(torch.cuda.get_rng_state())
        return original(self, batch, batch_idx)

    SpikingClassifier.training_step = first
    try:
        torch.cuda.manual_seed_all(99)
        code = main(["train", f"resume={run.path}"])
    finally:
        SpikingClassifier.training_step = original
    return [code, run.state(), torch.equal(states[0], saved), len(set(saved.tolist())) > 1]


def waits(folder: Path, engine: str) -> list[Any]:
    """Host waits of a step of a real training, by `gradspike profile`."""
    out = folder / f"profile_{engine}.json"
    words = [*TINY, f"data_dir={folder / 'data'}", "dataset.batch_size=64", "trainer.accelerator=gpu", "steps=2"]
    code = main(["profile", *words, f"engine={engine}", f"out={out}"])
    return [code, json.loads(out.read_text())["step"]["waits"]]


def refused_operations() -> dict[str, bool]:
    """Operations of the list that can be run in a line, and whether torch refuses them."""
    functional = torch.nn.functional

    def values(*shape: int) -> torch.Tensor:
        return torch.rand(shape, device="cuda", requires_grad=True)

    places = torch.zeros(2, 4, 8, 8, dtype=torch.long, device="cuda")
    volume, picture, row = (2, 4, 4, 8, 8), (2, 4, 8, 8), (2, 4, 8)
    cases: dict[str, Callable[[], Any]] = {
        "_adaptive_avg_pool2d_backward": lambda: functional.adaptive_avg_pool2d(values(*picture), 3),
        "_adaptive_avg_pool3d_backward": lambda: functional.adaptive_avg_pool3d(values(*volume), 3),
        "_upsample_bicubic2d_aa_backward": lambda: functional.interpolate(
            values(*picture), scale_factor=0.5, mode="bicubic", antialias=True
        ),
        "_upsample_bilinear2d_aa_backward": lambda: functional.interpolate(
            values(*picture), scale_factor=0.5, mode="bilinear", antialias=True
        ),
        "adaptive_max_pool2d_backward": lambda: functional.adaptive_max_pool2d(values(*picture), 3),
        "avg_pool3d_backward": lambda: functional.avg_pool3d(values(*volume), 2),
        "fractional_max_pool2d_backward": lambda: functional.fractional_max_pool2d(values(*picture), 2, output_size=3),
        "fractional_max_pool3d_backward": lambda: functional.fractional_max_pool3d(values(*volume), 2, output_size=2),
        "grid_sampler_2d_backward": lambda: functional.grid_sample(
            values(*picture), torch.zeros(2, 8, 8, 2, device="cuda"), align_corners=False
        ),
        "histc": lambda: torch.histc(values(9).detach()) * values(1),
        "max_pool3d_with_indices_backward": lambda: functional.max_pool3d(values(*volume), 2),
        "max_unpool2d": lambda: functional.max_unpool2d(values(*picture), places, 2),
        "median.dim": lambda: values(*picture).median(1).values,
        "nll_loss2d_forward": lambda: functional.cross_entropy(values(2, 4, 8, 8), places[:, 0]),
        "put": lambda: values(*picture).take(places[0, 0, 0]),
        "reflection_pad1d_backward": lambda: functional.pad(values(*row), (1, 1), mode="reflect"),
        "upsample_bicubic2d_backward": lambda: functional.interpolate(values(*picture), scale_factor=2, mode="bicubic"),
        "upsample_linear1d_backward": lambda: functional.interpolate(values(*row), scale_factor=2, mode="linear"),
    }
    assert set(cases) <= set(NOT_DETERMINISTIC)
    refused = {}
    torch.use_deterministic_algorithms(True)
    for name, case in cases.items():
        try:
            case().sum().backward()
            refused[name] = False
        except RuntimeError as error:
            refused[name] = "deterministic" in str(error)
    return refused


def generated(cache: Path) -> dict[str, int]:
    """Of the CUDA kernels that torch.compile made: how many, and how many of them may differ between the passes."""
    sources = [file.read_text() for file in cache.rglob("*.py")]
    kernels = [source for source in sources if "@triton.jit" in source and "async_compile" not in source]
    lines = {file.name: file.read_text().splitlines() for file in cache.rglob("*.py")}
    machine = [file.read_text() for file in cache.rglob("*.ptx")]
    return {
        "kernels": len(kernels),
        "fuse": sum("'enable_fp_fusion': False" not in kernel for kernel in kernels),
        "not deterministic": sum("'deterministic': True" not in kernel for kernel in kernels),
        "compiled": len(machine),
        "fused": sum(fused_by_the_compiler(code, lines) for code in machine),
    }


def fused_by_the_compiler(machine: str, lines: dict[str, list[str]]) -> int:
    """Multiply-adds of a kernel that its source, found by file name, does not ask for by `tl.fma`."""
    count, line = 0, ""
    for text in machine.splitlines():
        if place := re.search(r"\.loc\s.*// (\S+\.py):(\d+):\d+", text):
            line = lines.get(place[1], [])[int(place[2]) - 1] if place[1] in lines else ""
        elif "fma.rn.f32" in text:
            count += "tl.fma(" not in line
    return count


def everything(folder: Path, only: list[str]) -> Findings:
    found = Findings(only)
    found.part("cpu", lambda: cpu_leaves_cuda_alone(folder))
    found.part("refused", refused_operations)
    for network in MODELS.names():
        found.part(f"eager {network}", lambda network=network: steps("eager", network))
    for network in TRITON_NETWORKS:
        found.part(f"triton {network}", lambda network=network: steps("triton", network))
    for engine in ("eager", "triton"):
        found.part(f"graphs {engine}", lambda engine=engine: graphed(engine, TRITON_NETWORKS[0]))
    found.part("graphs of a run", lambda: trained_as_graphs(folder))
    for engine in ("eager", "triton", "compiled"):
        found.part(f"train {engine}", lambda engine=engine: trained(folder, engine))
    found.part("generated", lambda: generated(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])))
    found.part("resumed", lambda: resumed(folder))
    for engine in ("eager", "triton"):
        found.part(f"waits {engine}", lambda engine=engine: waits(folder, engine))
    return found


def serve(place: str) -> None:
    """Start a process for each client, which supervises a fork that runs what the client asks for."""
    for name in ("gradspike.training.run", "hydra.compose", "torch._dynamo", "sklearn.datasets", "pytest"):
        importlib.import_module(name)
    source_digest()  # takes a second, and is kept
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(64)
        print("READY", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            with contextlib.suppress(ChildProcessError):  # so that their time counts as this process's
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if sys.stdin in ready:
                return
            channel, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                supervise(channel)
            channel.close()


def supervise(channel: socket.socket) -> NoReturn:
    """Run a client's request in a fork; answer with its exit code."""
    head, files, _, _ = socket.recv_fds(channel, HEADER.size, 3)
    (length,) = HEADER.unpack(head)
    request = json.loads(channel.recv(length, socket.MSG_WAITALL))
    die_together = dies_with_this_process()
    child = os.fork()
    if child == 0:
        os.setsid()
        die_together()
        channel.close()
        end_with(lambda: run(request, files))
    for file in files:
        os.close(file)
    code = None
    while code is None:
        if select.select([channel], [], [], 0.01)[0]:
            word = channel.recv(1)
            if not word:  # with all that it has started, which the client's end does not reach
                os.killpg(child, signal.SIGKILL)
                os._exit(0)
            os.kill(child, word[0])
        pid, status = os.waitpid(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if pid else None
    with contextlib.suppress(BrokenPipeError):
        channel.sendall(f"{code}\n".encode())
    os._exit(0)


def run(request: dict[str, Any], files: list[int]) -> None:
    """Be the process of `python WORDS...` with the client's files, folder and variables."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number, name in ((1, "stdout"), (2, "stderr")):
        unbuffered = io.FileIO(number, "w", closefd=False)
        setattr(sys, name, io.TextIOWrapper(unbuffered, write_through=True))
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(request["cwd"])
    ours = {"LD_PRELOAD": os.environ["LD_PRELOAD"]}  # for the processes that it starts
    os.environ.clear()
    os.environ.update(request["environment"] | ours)
    words = [word for word in request["words"][:1] if word != "-P"] + request["words"][1:]
    if words[0] == "-m":
        sys.path[0], sys.argv = request["cwd"], words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(words[0]).absolute().parent), words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "serve":
        serve(words[0])
        sys.exit()
    if what == "main":
        sys.exit(main(words))
    sys.argv[1:] = []
    torch.use_deterministic_algorithms(True)
    print("FOUND " + json.dumps(everything(Path(words[0]), words[1:])), flush=True)
