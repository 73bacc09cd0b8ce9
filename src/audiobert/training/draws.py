"""Which rows come when: in passes in random order, and in batches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def in_passes(size: int, count: int, random: np.random.Generator) -> list[int]:
    """So many of the numbers below `size`: each once before any comes again, every pass in another order.

    >>> drawn = in_passes(3, 5, np.random.default_rng(0))
    >>> sorted(drawn[:3]), len(drawn)
    ([0, 1, 2], 5)
    """
    if not size or not count:
        return []
    order = np.concatenate([random.permutation(size) for _ in range(-(-count // size))])
    return [int(i) for i in order[:count]]


def by_length(
    rows: Sequence[T], lengths: Sequence[int], batch_size: int, random: np.random.Generator, jitter: float
) -> list[list[T]]:
    """Rows in batches of about equal length, give or take a share `jitter` of it, the batches in random order."""
    about = np.array(lengths) * random.uniform(1.0 - jitter, 1.0 + jitter, len(rows))
    order = np.argsort(about, kind="stable")
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [[rows[i] for i in groups[g]] for g in random.permutation(len(groups))]
