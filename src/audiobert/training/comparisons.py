"""Comparisons for the span scorer: two spans, which is higher, and what each is scored by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from audiobert.text_features import ScoredTexts, TextFeatures
from audiobert.training.retrieval import Retrieved


@dataclass(frozen=True)
class Comparison:
    """Two spans of a row, and whether the first is the higher one."""

    first: str
    second: str
    higher: bool


@dataclass
class ComparisonBatch:
    """Comparisons as tensors: what the two spans of each are scored by, `(comparisons, 2, ...)`, their clips and those
    clips' scores `(comparisons, 2, clips)`, and 1 where the first is higher, `(comparisons,)`."""

    words: TextFeatures
    clips: Tensor
    scores: Tensor
    higher: Tensor

    def to(self, device: torch.device | str) -> ComparisonBatch:
        """What the model computes with; the clips' numbers stay where the clips are."""
        moved = {name: getattr(self, name).to(device) for name in ("words", "scores", "higher")}
        return replace(self, **moved)


def make_comparison_batch(
    comparisons: Sequence[Comparison], texts: ScoredTexts, retrieved: Retrieved, clips: int
) -> ComparisonBatch:
    """Comparisons as tensors, with their clips."""
    pairs = [(comparison.first, comparison.second) for comparison in comparisons]
    found = [retrieved.of_texts(pair, 2, clips) for pair in pairs]
    return ComparisonBatch(
        texts.of(pairs),
        torch.from_numpy(np.stack([indices for indices, _ in found])),
        torch.from_numpy(np.stack([scores for _, scores in found])),
        torch.tensor([float(comparison.higher) for comparison in comparisons]),
    )
