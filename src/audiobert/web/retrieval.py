"""Measure retrieval by words: for each kind of sound, the share of the first clips that are of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from audiobert.auditorybench.kinds import words_of

if TYPE_CHECKING:
    from audiobert.pipeline import AudioBert

TOP_K = 10
LEAST_CLIPS = 5


def retrieval_by_class(model: AudioBert) -> list[tuple[str, float, int]]:
    """Compute the precision at 10 of each label of the bank, with its name as the query, best first.

    Labels of fewer than five clips are left out; of one with fewer than ten, as many clips as it has are looked at.
    Return the label as words, the precision, and the number of its clips; nothing for banks without labels.
    """
    labels = [words_of(label or "") for label in model.bank.table["label"].to_pylist()]
    counts = Counter(label for label in labels if label)
    asked = [label for label, count in counts.items() if count >= LEAST_CLIPS]
    if not asked:
        return []
    names = np.array(labels, dtype=object)
    found = []
    for label in asked:
        rows = [hit.row for hit in model.search(label, min(TOP_K, counts[label]))]
        found.append((label, float(np.mean(names[rows] == label)), counts[label]))
    return sorted(found, key=lambda one: (-one[1], one[0]))
