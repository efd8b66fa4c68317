"""Time of a training step on one and two processes of one CPU, with the same batch, and the share of communication in
it.

    python benchmarks/ddp.py
    python benchmarks/ddp.py --methods fixed_sg,ds_atgo --networks resnet19,vggsnn --rounds 15

Every process has one thread. Two processes train on half of the batch each, in three ways: as `trainer=ddp_cpu` does;
with the statistics of norms and methods computed on each process alone (norm.sync=false, sync_stats=false), so that
only gradients are exchanged; and without any exchange. What the first one takes longer than the last one is
communication, including the wait for the slower process. A single process with two threads shows what the same cores
can do otherwise.

All processes stay alive and take turns; each round starts with another way, and shares are of numbers of the same
round. The table has medians and the 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from rich.table import Table

from gradspike.cli.reporting import reporting_errors
from gradspike.engine.registry import ENGINES
from gradspike.errors import ConfigError, UserError
from gradspike.methods.registry import METHODS
from gradspike.shown import counted
from gradspike.terminal.tables import console
from step import NETWORKS, chosen
from step_table import cpu_name, spread
from step_worker import Candidate, Network, Setting, Training, reason

SETTING = Setting("fp32", "contiguous")
WARM_UP = 2
SECONDS_TO_END = 20


@dataclass(frozen=True)
class Way:
    """One way to train. words: overrides; exchanges: whether gradients are exchanged; threads: of each process."""

    processes: int
    words: tuple[str, ...] = ()
    exchanges: bool = False
    threads: int = 1


ONE, TWO_THREADS = "1 process", "1 process, 2 threads"
ALL, GRADIENTS, NOTHING = "2 processes", "2 processes, only gradients exchanged", "2 processes, nothing exchanged"
SHARES = ("communication, share of the step", "of statistics", "of gradients")
WAYS = {
    ONE: Way(1),
    TWO_THREADS: Way(1, threads=2),
    ALL: Way(2, exchanges=True),
    GRADIENTS: Way(2, ("norm.sync=false", "method.sync_stats=false"), exchanges=True),
    NOTHING: Way(2, ("norm.sync=false", "method.sync_stats=false")),
}


def options_of(words: Sequence[str]) -> argparse.Namespace:
    """The options, checked. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--networks", default="resnet19", help="choose from " + ", ".join(NETWORKS))
    parser.add_argument("--methods", default="mpd_agl,ds_atgo", help="choose from " + ", ".join(METHODS.names()))
    parser.add_argument("--engine", default="compiled", choices=sorted(ENGINES))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way")
    parser.add_argument("--steps", type=int, default=1, help="training steps per turn")
    parser.add_argument("--width", type=float, default=0.5, help="model.width")
    parser.add_argument("--batch", type=int, help="samples of a step; default: 16 for resnet19, 4 for vggsnn")
    options = parser.parse_args(words)
    options.networks = chosen("networks", options.networks, NETWORKS)
    options.methods = chosen("methods", options.methods, METHODS.names())
    for name in ("rounds", "steps", "width", "batch"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name} {value}: must be greater than 0.")
    if options.batch is not None and (options.batch % 2 or options.batch < 4):
        raise ConfigError(f"--batch {options.batch}: two processes need an even number, 4 or more.")
    return options


class Group:
    """Processes that train together."""

    def __init__(self, processes: int, network: Network, candidate: Candidate, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        share = replace(network, batch=network.batch // processes)
        ways = {name: way for name, way in WAYS.items() if way.processes == processes}
        for rank in range(processes):
            ours, theirs = context.Pipe()
            arguments = (rank, processes, str(folder / f"store_{processes}"), share, candidate, ways, theirs)
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """Send a request to all processes and return their answers. Raises UserError if one failed."""
        for pipe in self._pipes:
            pipe.send(request)
        return self.answers()

    def answers(self) -> list[dict[str, Any]]:
        found = []
        for pipe in self._pipes:
            try:
                found.append(pipe.recv())
            except EOFError as error:
                raise UserError("A process of the benchmark died.") from error
            if "error" in found[-1]:
                raise UserError(found[-1]["error"])
        return found

    def close(self) -> None:
        """End the processes; closed pipes tell them to."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(SECONDS_TO_END)
            process.kill()
            process.join()


class Rank(Training):
    """One process of a way."""

    def __init__(self, network: Network, candidate: Candidate, way: Way) -> None:
        super().__init__(replace(network, words=(*network.words, *way.words)), candidate, SETTING, "cpu")
        if way.exchanges:
            from torch.nn.parallel import DistributedDataParallel

            from gradspike.training.gradients import averaged_in_order

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of the argument, whose successor older torch lacks
                model = DistributedDataParallel(self.plain, broadcast_buffers=False)
            model.register_comm_hook(None, averaged_in_order)
            self.model = model


def serve(
    rank: int,
    processes: int,
    store: str,
    network: Network,
    candidate: Candidate,
    ways: dict[str, Way],
    pipe: Connection,
) -> None:
    """Answer requests {"way", "steps"} with {"seconds"}, and {"count": way} with collectives and bytes of a step."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        if processes > 1:
            files = dist.FileStore(store, processes)  # type: ignore[attr-defined]
            dist.init_process_group("gloo", store=files, rank=rank, world_size=processes)
        own = {name: Rank(network, candidate, _possible(way, candidate)) for name, way in ways.items()}
        for training in own.values():
            for _ in range(WARM_UP):
                training.step()
        pipe.send({})
        while (request := _received(pipe)) is not None:
            if "count" in request:
                pipe.send(_counted(own[request["count"]]))
                continue
            torch.set_num_threads(ways[request["way"]].threads)
            if processes > 1:
                dist.barrier()
            pipe.send({"seconds": own[request["way"]].seconds(request["steps"])})
    except Exception as error:
        pipe.send({"error": reason(error)})


def _received(pipe: Connection) -> dict[str, Any] | None:
    """The next request, None if there is none."""
    try:
        request: dict[str, Any] = pipe.recv()
    except EOFError:
        return None
    return request


def _possible(way: Way, candidate: Candidate) -> Way:
    """The way with the options that the method has."""
    known = METHODS.config_class(candidate.method).model_fields
    return replace(
        way, words=tuple(word for word in way.words if not word.startswith("method.") or "sync_stats" in known)
    )


def _counted(training: Training) -> dict[str, int]:
    """Collectives of statistics in a step with their bytes, and the bytes of the gradients."""
    import torch.distributed as dist

    gradients = sum(one.numel() * one.element_size() for one in training.plain.parameters() if one.requires_grad)
    sizes: list[int] = []
    originals = dist.all_gather, dist.all_reduce

    def gather(rows: Any, row: Any, *more: Any, **options: Any) -> Any:
        sizes.append(row.numel() * row.element_size())
        return originals[0](rows, row, *more, **options)

    def reduce(row: Any, *more: Any, **options: Any) -> Any:
        sizes.append(row.numel() * row.element_size())
        return originals[1](row, *more, **options)

    dist.all_gather, dist.all_reduce = gather, reduce
    try:
        training.step()
    finally:
        dist.all_gather, dist.all_reduce = originals
    return {"collectives": len(sizes), "bytes": sum(sizes), "gradients": gradients}


def measure(groups: dict[int, Group], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds per step of each way, one number per round; those of the slower process of two."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    names = list(WAYS)
    for turn in range(rounds):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            answers = groups[WAYS[name].processes].ask(way=name, steps=steps)
            seconds[name].append(max(answer["seconds"] for answer in answers))
    return seconds


def column_of(seconds: dict[str, list[float]]) -> list[str]:
    """Milliseconds per step of each way, and shares of communication in a step of two processes."""
    rounds = [dict(zip(seconds, values, strict=True)) for values in zip(*seconds.values(), strict=True)]
    shares = (
        [(one[more] - one[less]) / one[ALL] for one in rounds]
        for more, less in ((ALL, NOTHING), (ALL, GRADIENTS), (GRADIENTS, NOTHING))
    )
    milliseconds = ([1000 * value for value in values] for values in seconds.values())
    return [*(_cell(values, "{:,.0f}") for values in milliseconds), *(_cell(values, "{:.0%}") for values in shares)]


def _cell(values: Sequence[float], form: str) -> str:
    middle, low, high = (form.format(value) for value in spread(values))
    return f"{middle} ({low} to {high})"


def run(options: argparse.Namespace) -> int:
    """Measure and print a table for each network."""
    import torch

    for title in options.networks:
        network = replace(NETWORKS[title], batch=options.batch or NETWORKS[title].batch, width=options.width)
        columns, notes = [], []
        for method in options.methods:
            candidate = Candidate(method, "ours", options.engine, method)
            with tempfile.TemporaryDirectory() as folder:
                groups = {processes: Group(processes, network, candidate, Path(folder)) for processes in (1, 2)}
                try:
                    for group in groups.values():
                        group.answers()
                    counts = groups[2].ask(count=ALL)[0]
                    seconds = measure(groups, options.rounds, options.steps)
                finally:
                    for group in groups.values():
                        group.close()
            columns.append(column_of(seconds))
            notes.append(
                f"{method}: a step of two processes exchanges {counts['collectives']} times statistics of "
                f"{counts['bytes'] / counts['collectives'] / 1024:.1f} KiB on average, and gradients of "
                f"{counts['gradients'] / 2**20:.1f} MiB."
            )
        table = Table("ms per step", title=network.described(), title_justify="left")
        for method in options.methods:
            table.add_column(method, justify="right")
        for head, *cells in zip((*WAYS, *SHARES), *columns, strict=True):
            table.add_row(head, *cells)
        out = console()
        out.print(table)
        turns = f"{counted(options.rounds, 'round')} of {counted(options.steps, 'step')}, {time.strftime('%Y-%m-%d')}"
        machine = f"{cpu_name()}, one thread per process, engine={options.engine}, torch {torch.__version__}"
        notes.append(f"{machine}; {turns}.")
        for note in notes:
            out.print(note, highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: run(options_of(sys.argv[1:]))))
