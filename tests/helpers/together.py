"""Train as several processes that something else has started: `python together.py PLAN`.

PLAN is a JSON list of {"world_size", "words", "resume", "fail_at"}, trained one after the other. Ranks are forks of
this process, which imports everything once. `resume` continues the only run of its runs_dir;
at its `fail_at`-th micro-batch every rank fails. Prints the exit codes of each entry's ranks as a JSON list.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from gradspike.config.compose import load_config
from gradspike.runs.folder import RunFolder
from gradspike.training import run as training
from gradspike.training.module import SpikingClassifier


def rank_of(rank: int, port: int, entry: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(entry["world_size"])}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if entry.get("fail_at"):
        _fail_at(entry["fail_at"])
    config = load_config(entry["words"])
    resumed = None
    if entry.get("resume"):
        resumed = RunFolder(next(Path(config.runs_dir).glob("2*")))
        config = resumed.config()
    training.train(config, resumed, ["gradspike", "train", *entry["words"]])


def _fail_at(number: int) -> None:
    done = 0
    original = SpikingClassifier.training_step

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        nonlocal done
        done += 1
        if done == number:
            os._exit(7)
        return original(self, batch, batch_idx)

    SpikingClassifier.training_step = step  # type: ignore[method-assign]


def main() -> None:
    context = multiprocessing.get_context("fork")
    codes = []
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = [context.Process(target=rank_of, args=(rank, port, entry)) for rank in range(entry["world_size"])]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
            process.kill()
        codes.append([process.exitcode for process in processes])
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
