"""Hearing many clips: in worker processes, in order, a bounded number in flight, whatever a clip does to a worker."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from audiobert.bank.decode import Heard, Hearing, hear
from audiobert.bank.sources import Entry
from audiobert.errors import InputError


@dataclass(frozen=True)
class Task:
    """An entry to be heard, its size and time of change, and what an earlier build knows of it."""

    entry: Entry
    stamp: str | None
    known_sha256: str | None = None
    accepted: bool = False


Block = list[Task]

# Blocks that are heard while one is encoded: enough that neither waits, few enough that memory stays flat.
_BLOCKS_AHEAD = 3


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hear_blocks(blocks: Iterable[Block], hearing: Hearing, workers: int) -> Iterator[tuple[Block, list[Heard]]]:
    """Hear blocks of clips and yield them in order.

    Parameters
    ----------
    blocks
        Entries to be heard.
    hearing
        How they are heard.
    workers
        Worker processes; 0 hears in this one.

    Raises
    ------
    InputError
        When worker processes cannot start.

    Notes
    -----
    A clip that kills its worker is found by hearing the blocks in flight again one clip at a time, and is rejected with
    the reason `crashed`.
    """
    if workers < 1:
        for block in blocks:
            yield block, [hear(task.entry, hearing, task.known_sha256) for task in block]
        return
    waiting: deque[tuple[Block, list[Future[Heard]] | None]] = deque()
    pool = _pool(workers)
    try:
        _check_that_workers_start(pool)
        upcoming = iter(blocks)
        exhausted = False
        while True:
            while not exhausted and len(waiting) < _BLOCKS_AHEAD:
                following = next(upcoming, None)
                if following is None:
                    exhausted = True
                else:
                    waiting.append((following, _submit(pool, following, hearing)))
            if not waiting:
                return
            block, futures = waiting.popleft()
            try:
                if futures is None:
                    raise BrokenProcessPool
                heard = [future.result() for future in futures]
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                heard = _hear_one_by_one(block, hearing)
                pool = _pool(workers)
                waiting = deque((one, _submit(pool, one, hearing)) for one, _ in waiting)
            yield block, heard
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not forked: a fork of a process that runs torch's threads can hang.
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload(["audiobert.bank.decode", "swift_f0"])  # imported once for all workers
    return ProcessPoolExecutor(workers, mp_context=context)


def leave_if_imported_by_a_worker() -> None:
    """End a worker process that, on starting, runs its parent's script down to the build that the worker is for.

    That is a script without `if __name__ == "__main__":`; its parent says so (`hear_blocks`), the worker is quiet.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # what multiprocessing itself looks at
        raise SystemExit(1)


def _check_that_workers_start(pool: ProcessPoolExecutor) -> None:
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        raise InputError(
            "the worker processes cannot start: each of them imports the script that runs, so a script must build its "
            "bank under 'if __name__ == \"__main__\":'; do that, or build with workers=0"
        ) from None


def _submit(pool: ProcessPoolExecutor, block: Block, hearing: Hearing) -> list[Future[Heard]] | None:
    try:
        return [pool.submit(hear, task.entry, hearing, task.known_sha256) for task in block]
    except BrokenProcessPool:
        return None


def _hear_one_by_one(block: Block, hearing: Hearing) -> list[Heard]:
    heard: list[Heard] = []
    pool = _pool(1)
    for task in block:
        try:
            heard.append(pool.submit(hear, task.entry, hearing, task.known_sha256).result())
        except BrokenProcessPool:
            pool.shutdown(wait=False)
            pool = _pool(1)
            heard.append(Heard(problem=("crashed", "decoding it ended the process")))
    pool.shutdown()
    return heard
