"""Put rows into batches of like length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def by_length(
    rows: Sequence[T],
    lengths: Sequence[int],
    batch_size: int,
    random: np.random.Generator,
    jitter: float,
    kinds: Sequence[Hashable] | None = None,
) -> list[list[T]]:
    """Batch rows of about equal length, give or take a share `jitter` of it, the batches in random order.

    Rows of several `kinds` are never in one batch.
    """
    about = np.array(lengths) * random.uniform(1.0 - jitter, 1.0 + jitter, len(rows))
    order = np.argsort(about, kind="stable").tolist()
    members: dict[Hashable, list[int]] = {}
    for i in order:
        members.setdefault(None if kinds is None else kinds[i], []).append(i)
    groups = [some[at : at + batch_size] for some in members.values() for at in range(0, len(some), batch_size)]
    return [[rows[i] for i in groups[g]] for g in random.permutation(len(groups))]
