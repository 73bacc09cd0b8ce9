"""Choose the threads of a command before torch is imported, because torch reads these variables when it is."""

from __future__ import annotations

import os
import sys
from typing import Any

VARIABLE = "AUDIOBERT_THREADS"
_COUNT, _WAIT = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"


def set_threads(count: int | None) -> None:
    """Compute on `count` threads; None leaves it to torch, which takes as many as there are cores."""
    if count is None:
        return
    os.environ[_COUNT] = str(count)
    torch: Any = sys.modules.get("torch")  # imported already where a command is run by a program
    if torch is not None:
        torch.set_num_threads(count)


def prefer_one_thread() -> None:
    """Compute on one thread unless another number was chosen.

    The products of a single sentence are too small to gain from a second thread, and lose where cores are busy.
    """
    os.environ.setdefault(_COUNT, "1")


def let_waiting_threads_sleep() -> None:
    """Let threads that wait for each other sleep unless the environment says otherwise.

    By default they keep their cores busy while they wait. On a machine with other work, that multiplies the time.
    """
    os.environ.setdefault(_WAIT, "PASSIVE")
