"""Put rows into batches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def by_length(
    rows: Sequence[T], lengths: Sequence[int], batch_size: int, random: np.random.Generator, jitter: float
) -> list[list[T]]:
    """Batch rows of about equal length, give or take a share `jitter` of it, the batches in random order."""
    about = np.array(lengths) * random.uniform(1.0 - jitter, 1.0 + jitter, len(rows))
    order = np.argsort(about, kind="stable")
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [[rows[i] for i in groups[g]] for g in random.permutation(len(groups))]
