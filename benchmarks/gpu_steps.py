"""The steps of benchmarks/gpu_check.py, one in each process: `gpu_steps.py RESULT TASK` (see gpu_record)."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from gpu_record import Record, Task
from gpu_speed import cifar10, kernels, steps_of
from gpu_training import ROOT, SMALL_CNN, Ran, accelerator, clock, data_dir, engines, gradspike, last_line, train
from gradspike.models.registry import MODELS

README = ("method=mpd_agl", "dataset=digits", "model=spiking_cnn")
"""The training of `make train`."""
LEAST_ACCURACY = 0.97


def machine(task: Task, record: Record) -> None:
    """GPU, driver and versions; the bandwidth of a copy; the speed of a bf16 matrix product."""
    import importlib.metadata
    import platform

    import torch

    from step_table import cpu_name

    for name in ("torch", "triton", "lightning"):
        try:
            record.note(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            record.note(name, None)
    record.note("python", platform.python_version())
    record.note("cuda", torch.version.cuda)
    if task.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        record.note("card", card.name)
        record.note("capability", f"{card.major}.{card.minor}")
        record.note("memory_bytes", card.total_memory)
        record.note("multiprocessors", card.multi_processor_count)
        record.note("driver", driver())
        record.note("cudnn", torch.backends.cudnn.version())
    else:
        record.note("card", cpu_name())
    matrix = torch.arange(64.0).reshape(8, 8)
    product = matrix.to(task.device) @ matrix.to(task.device)
    record.check_values("a matrix product is that of the CPU", torch.equal(product.cpu(), matrix @ matrix))
    time_of = clock(task, 3 if task.small else 20)
    size = 2**20 if task.small else 2**30
    source = torch.ones(size, dtype=torch.uint8, device=task.device)
    target = torch.empty_like(source)
    record.note("copy_bytes_per_second", 2 * size / time_of(lambda: target.copy_(source)))
    side = 64 if task.small else 8192
    left, right = (torch.randn(side, side, device=task.device).bfloat16() for _ in range(2))
    record.note("bf16_matmul_flops", 2 * side**3 / time_of(lambda: left @ right))
    if task.simulated:
        record.check_values("times", False)


def driver() -> str | None:
    """The version of the NVIDIA driver, as nvidia-smi reports it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=30)
    return done.stdout.strip().partition("\n")[0] or None


def tests(task: Task, record: Record) -> None:
    """The tests that need a GPU. Without one, they are only collected."""
    only_collect = task.simulated or task.device != "cuda"
    files = sorted(
        file for file in (ROOT / "tests").rglob("test_*.py") if "@pytest.mark.gpu" in file.read_text("utf-8")
    )
    words = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *(["--collect-only"] if only_collect else [])]
    command = [*task.python, *words, *(str(file.relative_to(ROOT)) for file in files)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, stdin=subprocess.DEVNULL)
    print(done.stdout, done.stderr, flush=True)
    ending = last_line(done.stdout)
    record.note("ending", ending)
    record.note("passed", int(found[1]) if (found := re.search(r"(\d+) passed", ending)) else 0)
    failed = [line.partition(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    record.note("failed", failed)
    record.check("pytest -m gpu", done.returncode == 0, f"code {done.returncode}, {ending} {last_line(done.stderr)}")
    if only_collect:
        record.note("only_collected", True)
        record.check_values("the results of pytest -m gpu", done.returncode == 0)


def digits(task: Task, record: Record) -> None:
    """The README's first command, twice with each engine: equal metrics, and the README's accuracy."""
    words = [*README, data_dir(task), *([*SMALL_CNN, "trainer.max_epochs=1"] if task.small else [])]
    prepared = gradspike(task, "prepare", ["prepare", "dataset=digits", data_dir(task)], Path(task.work))
    record.check("gradspike prepare dataset=digits", prepared.code == 0, last_line(prepared.said))
    names = [f"{engine}-{number}" for engine in engines(task) for number in (1, 2)]

    def one(name: str) -> Ran:
        return train(task, name, [*words, f"engine={name.partition('-')[0]}"])

    with ThreadPoolExecutor(task.jobs) as pool:
        ran = dict(zip(names, pool.map(one, names), strict=True))
    for name, run in ran.items():
        record.check(f"{name} ends with code 0", run.code == 0, f"{run.code}, {last_line(run.said)}")
        record.note(name, {"accuracy": run.accuracy(), "seconds": run.seconds})
        if not task.small:
            accuracy = run.accuracy() or 0.0
            record.check_values(
                f"test accuracy of at least {LEAST_ACCURACY:.0%}", accuracy >= LEAST_ACCURACY, f"{name}: {accuracy:.2%}"
            )
    for engine in engines(task):
        first, second = ran[f"{engine}-1"].metrics(), ran[f"{engine}-2"].metrics()
        record.check(f"{engine}: both runs write metrics.jsonl", bool(first and second))
        record.check_values("equal metrics.jsonl of two runs", first == second, engine)


def resume(task: Task, record: Record) -> None:
    """A run that a signal stops within an epoch, resumed, writes the bytes of a run that nothing stops."""
    epochs = 2 if task.small else 8
    common = [*README, data_dir(task), *(SMALL_CNN if task.small else ()), f"trainer.max_epochs={epochs}"]
    common += ["dataset.batch_size=16", "checkpoint.every_n_steps=3"]
    with ThreadPoolExecutor(task.jobs) as pool:
        list(pool.map(lambda engine: resume_one(task, record, engine, [*common, f"engine={engine}"]), engines(task)))


def resume_one(task: Task, record: Record, engine: str, words: list[str]) -> None:
    """The runs of one engine."""
    from gradspike.training.checkpoint import load_checkpoint

    whole = train(task, f"{engine}-whole", words)
    if not record.check(f"{engine} ends with code 0", whole.code == 0, f"{whole.code}, {last_line(whole.said)}"):
        return
    name = f"{engine}-stopped"
    stopped = train(task, name, words, stop=lambda runs: any(runs.glob("2*/checkpoints/last.ckpt")))
    expected = 128 + signal.SIGTERM
    what = f"{engine}: SIGTERM stops the run with code {expected}"
    if not record.check(what, stopped.code == expected, f"{stopped.code}, {last_line(stopped.said)}"):
        return
    assert stopped.folder is not None
    assert whole.folder is not None
    state = load_checkpoint(stopped.folder / "checkpoints" / "last.ckpt")
    per_epoch = whole.summary["steps"] // whole.summary["epochs"]
    record.note(engine, {"stopped_at_step": state["global_step"], "steps_per_epoch": per_epoch})
    step = state["global_step"]
    record.check(f"{engine}: stopped within an epoch", step % per_epoch != 0, f"at step {step}")
    again = gradspike(task, name, ["train", f"resume={stopped.folder}"], stopped.folder.parent)
    what = f"{engine}: the resumed run ends with code 0"
    if not record.check(what, again.code == 0, f"{again.code}, {last_line(again.said)}"):
        return
    equal = whole.metrics() == again.metrics() and whole.summary == again.summary
    record.check_values("equal metrics.jsonl and summary.json after resuming", equal, engine)
    folders = (whole.folder, stopped.folder)
    one, other = (load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in folders)
    same = one.keys() == other.keys() and all(bool((one[key] == other[key]).all()) for key in one)
    record.check_values("equal weights after resuming", same, engine)


SMALL_NETWORKS = {"spiking_cnn": ("model.width=4", "model.depth=2"), "timm": ("model.name=test_resnet",)}


def network_words(name: str, small: bool) -> tuple[str, ...]:
    """The overrides of a network: of its usual size, or of one whose step takes a second anywhere."""
    fields = MODELS.config_class(name).model_fields
    if not small and name != "timm":
        return (f"model={name}",)
    sizes = {"width": "0.07", "dim": "32", "heads": "2", "mlp_ratio": "1"}
    narrow = tuple(f"model.{key}={size}" for key, size in sizes.items() if key in fields)
    return (f"model={name}", *SMALL_NETWORKS.get(name, narrow))


def networks(task: Task, record: Record) -> None:
    """A deterministic step of every network with every pooling, twice: equal gradients, and no wait of the host."""
    import torch

    torch.use_deterministic_algorithms(True)
    for name in MODELS.names():
        options = MODELS.config_class(name)
        pools = ("avg", "max") if "pool" in options.model_fields else ("",)
        for pool in pools:
            for engine in ("eager",) if task.small or task.device == "cpu" else ("eager", "auto"):
                label = " ".join(filter(None, [name, pool, engine]))
                words = [
                    *network_words(name, task.small),
                    f"engine={engine}",
                    *([f"model.pool={pool}"] if pool else []),
                ]
                try:
                    first, second = (one_step(task, words) for _ in range(2))
                except Exception as error:
                    record.check(label, False, f"{type(error).__name__}: {last_line(str(error).partition(chr(10))[0])}")
                    continue
                same = all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
                record.note(label, "done")
                record.check_values("equal gradients in two steps of one seed", same, label)


def one_step(task: Task, words: list[str]) -> list[Any]:
    """The gradients of the second of two steps, in which the host must not wait for the device."""
    import torch

    from gradspike.config.compose import load_config
    from gradspike.training.build import build_model

    common = ["dataset=cifar10", "time_steps=2", "recipe=none", f"trainer.accelerator={accelerator(task)}"]
    config = load_config([*common, *words])
    torch.manual_seed(0)
    model = build_model(config).to(task.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(8, 3, 32, 32).to(task.device)
    try:
        for number in range(2):
            if number and task.device == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            optimizer.zero_grad()
            model(images).float().sum().backward()
            optimizer.step()
    finally:
        if task.device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return [one.grad for one in model.parameters() if one.grad is not None]


def nccl(task: Task, record: Record) -> None:
    """A process group of one process: collectives, statistics over ranks, and a step through DDP."""
    import warnings

    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from gradspike import ranks
    from gradspike.config.compose import load_config
    from gradspike.training.build import build_model
    from gradspike.training.gradients import lay_out_like_weights

    backend = "nccl" if task.device == "cuda" and not task.simulated else "gloo"  # NCCL needs a real device
    record.note("backend", backend)
    if task.simulated:
        record.check_values("NCCL", False)
    store = Path(task.work) / "store"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.unlink(missing_ok=True)
    dist.init_process_group(backend, init_method=f"file://{store}", rank=0, world_size=1)
    try:
        row = torch.arange(8.0, device=task.device)
        expected = row.cpu()
        dist.all_reduce(row)
        record.check_values("a sum over one rank", torch.equal(row.cpu(), expected))
        record.check_values("values gathered from one rank", torch.equal(ranks.gathered(row)[0].cpu(), expected))
        words = [*README, *(SMALL_CNN if task.small else ()), f"trainer.accelerator={accelerator(task)}"]
        config = load_config([*words, f"engine={engines(task)[-1]}", "norm.sync=true"])
        torch.manual_seed(0)
        model = build_model(config).to(task.device, memory_format=torch.channels_last).train()
        places = [0] if task.device == "cuda" else None
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            parallel = DistributedDataParallel(model, device_ids=places)
            lay_out_like_weights(parallel.parameters())
            parallel(torch.randn(16, 1, 8, 8).to(task.device)).sum().backward()
        warned = [str(one.message).partition("\n")[0][:300] for one in seen]
        record.check("a step through DDP gives no warning", not warned, "; ".join(warned))
        reached = all(one.grad is not None for one in model.parameters())
        record.check("a step through DDP reaches every weight", reached)
    finally:
        dist.destroy_process_group()


ACTIONS: dict[str, Callable[[Task, Record], None]] = {
    "machine": machine,
    "tests": tests,
    "digits": digits,
    "resume": resume,
    "networks": networks,
    "nccl": nccl,
    "kernels": kernels,
    "resnet19_128": partial(steps_of, "resnet19", 128),
    "resnet19_32": partial(steps_of, "resnet19", 32),
    "vggsnn": partial(steps_of, "vggsnn", 16),
    "cifar10": cifar10,
}


def main(words: Sequence[str]) -> int:
    """Run the step of a task."""
    file, text = words
    task = Task.read(text)
    Path(task.work).mkdir(parents=True, exist_ok=True)
    ACTIONS[task.step](task, Record(Path(file), task))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
