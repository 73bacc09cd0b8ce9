"""Coordinate the processes of one training, as `torchrun` starts them: which one writes, and which wait."""

from __future__ import annotations

from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

# The main process evaluates and writes alone while the others wait for it.
LONGEST_WAIT = timedelta(hours=12)


def on_cpu() -> bool:
    """Return whether training runs on the CPU: no accelerator of any kind, or `ACCELERATE_USE_CPU` is set."""
    return bool(parse_flag_from_env("ACCELERATE_USE_CPU")) or not torch.accelerator.is_available()


def processes() -> PartialState:
    """Return the processes of this run: one, unless a launcher (`torchrun`, `accelerate launch`) started more.

    Several processes on CPUs talk through gloo.
    """
    return PartialState(cpu=on_cpu(), timeout=LONGEST_WAIT)
