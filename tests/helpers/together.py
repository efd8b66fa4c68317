"""Train as several processes that something else has started: `python together.py PLAN`.

PLAN is a JSON list of {"world_size", "words", "resume", "max_hours", "fail"}, trained one after the other. Ranks are
forks of this process, which imports everything once. `resume` continues the only run of its runs_dir, for at most
`max_hours`; words such as trainer.max_epochs then override its own. `fail` is [rank or null for all, micro-batch,
"exit" | "kill" | "error"]; "kill" at micro-batch 0 is before the ranks are connected. Prints the exit codes of each
entry's ranks and its seconds, as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import timm.utils  # noqa: F401  takes seconds, and trainer.ema would import it on each rank
import torch

from gradspike.cli.reporting import reporting_errors
from gradspike.config.compose import load_config
from gradspike.runs.code_version import source_digest
from gradspike.runs.folder import RunFolder
from gradspike.runs.resume import resumed_config
from gradspike.training import run as training
from gradspike.training.module import SpikingClassifier


def rank_of(rank: int, port: int, entry: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(entry["world_size"])}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if entry.get("fail") and entry["fail"][0] in (None, rank):
        _fail_at(*entry["fail"][1:])
    config = load_config(entry["words"])
    resumed = None
    if entry.get("resume"):
        resumed = RunFolder(next(Path(config.runs_dir).glob("2*")))
        config = resumed_config(resumed, config, entry["words"])
        hours = config.trainer.model_copy(update={"max_hours": entry.get("max_hours")})
        config = config.model_copy(update={"trainer": hours})

    def trained() -> int:
        training.train(config, resumed, ["gradspike", "train", *entry["words"]])
        return 0

    sys.exit(reporting_errors(trained))


def _fail_at(number: int, how: str) -> None:
    if number == 0:
        torch.distributed.init_process_group = lambda *words, **more: os.kill(os.getpid(), signal.SIGKILL)
    done = 0
    original = SpikingClassifier.training_step

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        nonlocal done
        done += 1
        if done == number and how == "exit":
            os._exit(7)
        if done == number and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if done == number and how == "error":
            raise OSError("the disk is gone")
        return original(self, batch, batch_idx)

    SpikingClassifier.training_step = step  # type: ignore[method-assign]


def main() -> None:
    source_digest()  # takes half a second, and is kept
    context = multiprocessing.get_context("fork")
    ended = []
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = [context.Process(target=rank_of, args=(rank, port, entry)) for rank in range(entry["world_size"])]
        started = time.monotonic()
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
            process.kill()
        ended.append([[process.exitcode for process in processes], time.monotonic() - started])
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
