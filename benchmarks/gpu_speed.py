"""The steps of benchmarks/gpu_check.py that measure speed: kernels, whole training steps, epochs of CIFAR-10."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpu_record import Record, Task
from gpu_training import SMALL_CNN, clock, data_dir, gradspike, last_line, train
from gradspike.json_text import readable_lines
from gradspike.methods.registry import METHODS


def kernels(task: Task, record: Record) -> None:
    """Norm and neuron of single layers as training calls them, compared with a copy of the same tensors."""
    from triton_bandwidth import FORMS, LAYERS, all_engines, measured

    chosen = all_engines()
    if task.device == "cpu":
        del chosen["triton"]
    layers, batch, repeats, forms = (((8, 4),), 2, 2, FORMS[:1]) if task.small else (LAYERS, 128, 30, FORMS)
    record.note("time_steps", 2)
    record.note("batch", batch)
    rows: list[dict[str, Any]] = []
    for row in measured(2, batch, chosen, clock(task, repeats), task.device, layers, forms):
        rows.append(asdict(row))
        record.note("rows", rows)
    if task.simulated:
        record.check_values("times", False)


def steps_of(network: str, batch: int, task: Task, record: Record) -> None:
    """Whole training steps: the ReLU twin, plain and compiled, and ours with each engine; all but the reference engine
    as CUDA graphs too. All are prepared at the same time, then take turns.
    """
    from names import TWINS
    from step import NETWORKS, Worker, as_graphs
    from step_worker import Candidate, Network, Setting

    one = replace(NETWORKS[network], batch=batch, width=1.0)
    if task.small:  # the same in all of these steps, so that kernels are compiled once
        one = Network("small CNN", ("dataset=digits", "model=spiking_cnn", "model.depth=2"), 2, 2, 4)
    names = ("compiled", "triton", "eager") if task.device == "cuda" else ("compiled", "eager")
    methods = ("mpd_agl",) if task.small else ("mpd_agl", "ds_atgo")
    candidates = [Candidate(TWINS[0], "relu"), Candidate(TWINS[1], "relu", compiled=True)]
    candidates += [
        Candidate(f"{engine}, {method}", "ours", engine, method)
        for method in methods
        for engine in (names if method == "mpd_agl" else names[:-1])
    ]
    if task.device == "cuda":
        candidates += [as_graphs(each) for each in candidates if each.kind == "relu" or each.engine != "eager"]
    setting = Setting("bf16", "channels_last", deterministic=True)
    rounds, steps = (1, 1) if task.small else (5, 5)
    record.note("title", one.described())
    record.note("setting", f"{setting.name}, deterministic")
    workers = [Worker(one, each, task.device, 1 if task.small else None, task.python) for each in candidates]
    found: dict[str, dict[str, Any]] = {}
    try:
        for worker in workers:
            worker.answer()  # has started
            worker.tell(prepare=asdict(setting))
        running = []
        for worker in workers:
            answer = worker.answer()
            name = worker.candidate.name
            if record.check(name, "error" not in answer, answer.get("error", "")):
                running.append(worker)
                found[name] = {"peak_bytes": answer["peak_bytes"], "seconds": []}
        for turn in range(rounds):
            for worker in running[turn % max(len(running), 1) :] + running[: turn % max(len(running), 1)]:
                found[worker.candidate.name]["seconds"].append(worker.ask(run=steps).get("seconds"))
                record.note("candidates", found)
        for worker in running if task.device == "cuda" else []:
            found[worker.candidate.name] |= worker.ask(look=steps)
            record.note("candidates", found)
    finally:
        for worker in workers:
            worker.close()
    if task.simulated:
        record.check_values("times", False)


CIFAR_METHODS = ("fixed_sg", "lsg", "mpd_agl", "ds_atgo", "psg")
RESERVE = 20.0
"""Seconds for the start and the test of a training."""


def cifar10(task: Task, record: Record) -> None:
    """ResNet-19 on CIFAR-10 in bf16 with five methods, for as many epochs as the time limit allows."""
    assert set(CIFAR_METHODS) <= set(METHODS.names())
    ends = time.monotonic() + task.seconds
    if not record.check("CIFAR-10", task.data is not None, "no files found; name them with --data, or --skip cifar10"):
        return
    source = [f"dataset.source={task.data}", data_dir(task)]
    prepared = gradspike(task, "prepare", ["prepare", "dataset=cifar10", *source], Path(task.work))
    if not record.check("gradspike prepare", prepared.code == 0, last_line(prepared.said)):
        return
    words = ["dataset=cifar10", "time_steps=2", "recipe=none", "trainer=fast", *source]
    if task.small:
        words += ["model=spiking_cnn", *SMALL_CNN, "dataset.train_per_class=20", "engine=eager"]
    first = timed_epochs(task, record, CIFAR_METHODS[0], words, 1)
    if first is None:
        return
    left = (ends - time.monotonic()) / len(CIFAR_METHODS) - RESERVE
    epochs = 1 if task.small else max(1, int(0.9 * left / max(first, 1e-3)))
    record.note("epochs", epochs)
    for method in CIFAR_METHODS if epochs > 1 else CIFAR_METHODS[1:]:
        timed_epochs(task, record, method, words, epochs)


def timed_epochs(task: Task, record: Record, method: str, words: list[str], epochs: int) -> float | None:
    """Train, and record accuracy and time. Returns the seconds of the last epoch; None if it failed."""
    ran = train(task, method, [*words, f"method={method}", f"trainer.max_epochs={epochs}"])
    if not record.check(f"{method} ends with code 0", ran.code == 0, f"{ran.code}, {last_line(ran.said)}"):
        return None
    assert ran.folder is not None
    lines = list(readable_lines(ran.folder / "timing.jsonl"))
    timing: dict[str, Any] = next((line for line in reversed(lines) if "epoch_seconds" in line), {})
    accuracy = ran.accuracy()
    record.note(method, {"epochs": epochs, "accuracy": accuracy, "seconds": ran.seconds, **timing})
    if not task.small:
        record.check_values("better than chance", (accuracy or 0.0) > 0.15, f"{method}: {accuracy}")
    return float(timing.get("epoch_seconds", 0.0))
