"""Decode many clips in worker processes, in order, with a bounded number in flight; no clip ends a build."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

from audiobert.bank.decode import DecodedClip, DecodeSettings, decode_clip
from audiobert.bank.journal import Known
from audiobert.bank.sources import Entry
from audiobert.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """An entry to be decoded, and its outcome in an earlier build."""

    entry: Entry
    known: Known | None = None


Block = list[Task]

# Blocks that are decoded while one is encoded: enough that neither waits, few enough that memory stays flat.
_BLOCKS_AHEAD = 3


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decode_task(task: Task, decoding: DecodeSettings) -> DecodedClip:
    """Decode, measure and extract the features of one clip; no clip ends a build, whatever is wrong with it."""
    try:
        return decode_clip(task.entry, decoding, task.known.sha256 if task.known else None)
    except Exception as error:
        return DecodedClip(problem=("failed", f"decoding it ended in {type(error).__name__}: {error}"))


def decode_blocks(
    blocks: Iterable[Block], decoding: DecodeSettings, workers: int
) -> Generator[tuple[Block, list[DecodedClip]], None, None]:
    """Decode blocks of clips in worker processes and yield them in order.

    With 0 workers they are decoded in this process, as on a system without the shared memory that processes need. A
    clip that kills its worker is found by decoding the blocks in flight again one clip at a time, and is rejected with
    the reason `crashed`.
    """
    pool = _pool(workers) if workers > 0 else None
    if pool is None:
        for block in blocks:
            yield block, [decode_task(task, decoding) for task in block]
        return
    waiting: deque[tuple[Block, list[Future[DecodedClip]] | None]] = deque()
    try:
        _check_that_workers_start(pool)
        upcoming = iter(blocks)
        while True:
            for following in islice(upcoming, _BLOCKS_AHEAD - len(waiting)):
                waiting.append((following, _submit(pool, following, decoding)))
            if not waiting:
                return
            block, futures = waiting.popleft()
            try:
                if futures is None:
                    raise BrokenProcessPool
                decoded = [future.result() for future in futures]
            except BrokenProcessPool:
                pool.shutdown(cancel_futures=True)
                decoded = [_decode_alone(task, decoding) for task in block]
                pool = _new_pool(workers)
                waiting = deque((one, _submit(pool, one, decoding)) for one, _ in waiting)
            yield block, decoded
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor | None:
    try:
        return _new_pool(workers)
    except (OSError, ImportError, NotImplementedError) as error:
        log.warning("no worker processes, because this system has no shared memory (%s); decoding takes longer", error)
        return None


def _new_pool(workers: int) -> ProcessPoolExecutor:
    # Not forked: a fork of a process that runs torch's threads can hang.
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload(["audiobert.bank.decode", "swift_f0"])  # imported once for all workers
    return ProcessPoolExecutor(workers, mp_context=context)


def leave_if_imported_by_a_worker() -> None:
    """Exit if this is a worker process that imports a script without `if __name__ == "__main__":`.

    Such a script would build its bank again in every worker. Its parent says so (`decode_blocks`), the worker is quiet.
    """
    if any(
        one.function == "<module>" and one.frame.f_globals.get("__name__") == "__mp_main__"  # as multiprocessing has it
        for one in inspect.stack(0)
    ):
        raise SystemExit(1)


def _check_that_workers_start(pool: ProcessPoolExecutor) -> None:
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        raise InputError(
            "the worker processes cannot start: each of them imports the script that runs, so a script must build its "
            "bank under 'if __name__ == \"__main__\":'; do that, or build with workers=0"
        ) from None


def _submit(pool: ProcessPoolExecutor, block: Block, decoding: DecodeSettings) -> list[Future[DecodedClip]] | None:
    try:
        return [pool.submit(decode_task, task, decoding) for task in block]
    except BrokenProcessPool:
        return None


def _decode_alone(task: Task, decoding: DecodeSettings) -> DecodedClip:
    """Decode one clip in a process of its own."""
    with _new_pool(1) as pool:
        try:
            return pool.submit(decode_task, task, decoding).result()
        except BrokenProcessPool:
            return DecodedClip(problem=("crashed", "decoding it ended the process"))
