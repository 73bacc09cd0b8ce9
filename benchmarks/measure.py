"""How the benchmarks measure: two ways in turn, by CPU time, and whole processes with their peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Process:
    """What a finished process took."""

    cpu_s: float
    peak_mib: float


def in_turn(ours: Callable[[], Any], plain: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return the median CPU seconds of both calls, which take turns after one warm-up.

    CPU time of the process changes less with other work on the machine than the clock does.
    """
    ours()
    plain()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, own in zip((ours, plain), times, strict=True):
            began = time.process_time()
            work()
            own.append(time.process_time() - began)
    return median(times[0]), median(times[1])


def run_process(arguments: Sequence[str | Path], stdin: Path | None = None) -> Process:
    """Run Python with these arguments on one thread; return its CPU time and peak memory.

    Raises
    ------
    RuntimeError
        It failed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with Path(stdin or os.devnull).open("rb") as given:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], stdin=given, stdout=subprocess.DEVNULL, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(map(str, arguments))} failed with status {status}")
    return Process(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def row(name: str, ours: float, plain: float, unit: str, note: str, *, more_is_better: bool = True) -> dict[str, Any]:
    """Return a line of the report; the ratio is above 1 where ours is better."""
    ratio = ours / plain if more_is_better else plain / ours
    return {"name": name, "ours": ours, "plain": plain, "ratio": ratio, "unit": unit, "note": note}
