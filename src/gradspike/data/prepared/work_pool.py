"""Runs independent tasks in several processes, which end when their parent ends for any reason."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from gradspike.errors import UserError


def run_tasks(tasks: Iterable[tuple[int, Callable[[], None]]], workers: int) -> Iterator[int]:
    """Run (number, task) pairs, a few at a time. Yields the number of each finished task.

    Re-raises the errors of tasks; raises UserError if a process is killed.
    """
    if workers <= 1:
        for number, task in tasks:
            task()
            yield number
        return
    # Spawned, not forked: the parent may have threads (progress bar, torch), and a forked child can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        running: dict[Future[None], int] = {}
        for number, task in tasks:
            running[pool.submit(task)] = number
            if len(running) >= 2 * workers:
                yield from _collect(running)
        while running:
            yield from _collect(running)
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process of the preparation was killed, most often because memory ran out. Start again with "
            "fewer (workers=1); finished parts are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(running: dict[Future[None], int]) -> Iterator[int]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        number = running.pop(future)
        future.result()
        yield number


def _start_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
