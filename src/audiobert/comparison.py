"""Which of two spans has more of something: a score a span, so that a comparison turns round with its spans."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiobert.text_features import NGRAMS, TextScorer


class SpanScorer(TextScorer):
    """One score a span, the mean of a deep and a wide one (after Cheng et al., 2016, "Wide & Deep Learning").

    The deep score is a perceptron's, of the span's sentence vector (of the backbone without any adapter) and, if it
    `hears`, of the span's knowledge vector; the wide one is linear in the span's n-grams. Each learns from its own loss
    (`comparison_loss`): the one that is fitted faster would else leave the other nothing to learn.
    """

    def __init__(self, hidden_size: int, *, hears: bool = False, inner_size: int = 512, dropout: float = 0.6) -> None:
        super().__init__(hidden_size)
        self.hears = hears
        self.deep = nn.Sequential(
            nn.Dropout(dropout / 2),
            nn.Linear((1 + hears) * hidden_size, inner_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(inner_size, inner_size // 2),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(inner_size // 2, 1),
        )
        self.wide = nn.Embedding(NGRAMS + 1, 1, padding_idx=NGRAMS)
        nn.init.zeros_(self.wide.weight)

    def set_dropout(self, dropout: float) -> None:
        """Dropout of the inner layers, and half of it of the inputs."""
        for index, module in enumerate(self.deep):
            if isinstance(module, nn.Dropout):
                module.p = dropout if index else dropout / 2

    def forward(self, sentence_vectors: Tensor, knowledge: Tensor | None, ngrams: Tensor) -> Tensor:
        """Deep and wide score `(..., 2)` of spans.

        Parameters
        ----------
        sentence_vectors : Tensor
            `(..., hidden_size)`.
        knowledge : Tensor, optional
            `(..., hidden_size)`, a pooled knowledge vector a span; None where nothing is heard, or the
            scorer does not hear.
        ngrams : Tensor
            `(..., n)` buckets, padded with `NGRAMS`.
        """
        words = self.standardised(sentence_vectors)
        inputs = words
        if self.hears:
            heard = torch.zeros_like(words) if knowledge is None else knowledge.float()
            inputs = torch.cat([words, heard], dim=-1)
        counts = (ngrams != NGRAMS).sum(dim=-1).clamp(min=1)
        wide = self.wide(ngrams).squeeze(-1).sum(dim=-1) / counts.sqrt()
        return torch.stack([self.deep(inputs).squeeze(-1), wide], dim=-1)


def comparison_loss(first: Tensor, second: Tensor, prior: Tensor, higher: Tensor, noise: float = 0.0) -> Tensor:
    """Summed binary cross entropy of both scores' differences.

    Parameters
    ----------
    first, second : Tensor
        `(comparisons, 2)`, the scores of the spans of each comparison.
    prior : Tensor
        `(2,)`, how much likelier the first span is the higher one whatever the spans are.
    higher : Tensor
        `(comparisons,)`, 1 where the first is higher.
    noise : float
        Share of the target that the opposite gets.
    """
    target = torch.lerp(higher, 1.0 - higher, noise).unsqueeze(-1).expand_as(first)
    return functional.binary_cross_entropy_with_logits(first - second + prior, target, reduction="sum")
