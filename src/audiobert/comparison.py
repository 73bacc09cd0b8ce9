"""Which of two spans has more of something: a score a span, so that a comparison turns round with its spans."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from audiobert.clap import mean_pooled

NGRAMS = 1 << 15  # buckets that n-grams are hashed into; the one behind the last is for padding
WORD_NGRAMS = (1, 2)
CHARACTER_NGRAMS = (2, 3, 4, 5)


def span_ngrams(text: str) -> list[int]:
    """Buckets of the distinct n-grams of a span: words and pairs of words, and characters within words, case-folded.

    >>> span_ngrams("Bass") == span_ngrams("bass")
    True
    """
    words = ["".join(c for c in word if c.isalnum() or c in "'-") for word in text.casefold().split()]
    words = [word for word in words if word]
    grams = {"w" + " ".join(words[i : i + n]) for n in WORD_NGRAMS for i in range(len(words) - n + 1)}
    for word in (f" {word} " for word in words):
        grams |= {f"c{word[i : i + n]}" for n in CHARACTER_NGRAMS for i in range(max(1, len(word) - n + 1))}
    return sorted({zlib.crc32(gram.encode()) % NGRAMS for gram in grams})


def pad_ngrams(spans: Sequence[Sequence[int]]) -> Tensor:
    """Buckets of spans as one tensor `(spans, n)` int64, padded with `NGRAMS`."""
    width = max((len(span) for span in spans), default=0)
    padded = torch.full((len(spans), max(1, width)), NGRAMS, dtype=torch.int64)
    for row, span in enumerate(spans):
        padded[row, : len(span)] = torch.tensor(span, dtype=torch.int64)
    return padded


@dataclass
class SpanWords:
    """What spans are scored by.

    Attributes
    ----------
    sentence_vectors
        `(..., hidden_size)`, the mean of the backbone's last hidden states over each span's text, without any adapter.
    ngrams
        `(..., n)` buckets of their n-grams, padded with `NGRAMS`.
    """

    sentence_vectors: Tensor
    ngrams: Tensor

    def to(self, device: torch.device | str) -> SpanWords:
        return SpanWords(self.sentence_vectors.to(device), self.ngrams.to(device))

    def at(self, where: Tensor) -> SpanWords:
        """The spans `where` (...) of a list of spans; negative ones are no spans, of nothing."""
        vectors = self.sentence_vectors[where].masked_fill((where < 0).unsqueeze(-1), 0.0)
        ngrams = self.ngrams[where].masked_fill((where < 0).unsqueeze(-1), NGRAMS)
        most = int((ngrams != NGRAMS).sum(dim=-1).amax()) if ngrams.numel() else 0
        return SpanWords(vectors, ngrams[..., : max(1, most)])


def sentence_vectors(
    encoder: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, batch_size: int = 256
) -> Tensor:
    """Sentence vectors `(texts, hidden_size)` float32 of texts, with all adapters off while it is called."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors = torch.zeros(len(texts), encoder.config.hidden_size)
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            vectors[members] = mean_pooled(encoder, tokenizer, [texts[i] for i in members]).float().cpu()
    return vectors


class SpanTexts:
    """What each of some span texts is scored by; letter case does not matter.

    Parameters
    ----------
    names
        All texts that will be asked for, in lower case.
    vectors : Tensor
        Their sentence vectors `(names, hidden_size)`.
    """

    def __init__(self, names: Sequence[str], vectors: Tensor) -> None:
        self._index = {name: index for index, name in enumerate(names)}
        self._words = SpanWords(vectors, pad_ngrams([span_ngrams(name) for name in names]))

    def of(self, rows: Sequence[Sequence[str]]) -> SpanWords:
        """What the spans of rows are scored by, `(rows, spans, ...)`; rows of fewer spans are padded with none."""
        where = torch.full((len(rows), max((len(row) for row in rows), default=0)), -1)
        for row, texts in enumerate(rows):
            where[row, : len(texts)] = torch.tensor([self._index[text.lower()] for text in texts], dtype=torch.int64)
        return self._words.at(where)

    def of_texts(self, texts: Sequence[str]) -> SpanWords:
        """What each of some texts is scored by, `(texts, ...)`."""
        return self._words.at(torch.tensor([self._index[text.lower()] for text in texts], dtype=torch.int64))

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Sentence vectors `(texts, hidden_size)`."""
        return self._words.sentence_vectors[[self._index[text.lower()] for text in texts]]


class SpanScorer(nn.Module):
    """One score a span, the mean of a deep and a wide one (after Cheng et al., 2016, "Wide & Deep Learning").

    The deep score is a perceptron's, of the span's sentence vector (of the backbone without any adapter) and, if it
    `hears`, of the span's knowledge vector; the wide one is linear in the span's n-grams. Each learns from its own loss
    (`comparison_loss`): the one that is fitted faster would else leave the other nothing to learn.
    """

    def __init__(self, hidden_size: int, *, hears: bool = False, inner_size: int = 512, dropout: float = 0.6) -> None:
        super().__init__()
        self.hears = hears
        self.center = nn.Parameter(torch.zeros(hidden_size), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(hidden_size), requires_grad=False)
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

    def standardise(self, sentence_vectors: Tensor) -> None:
        """Take mean and standard deviation from vectors `(spans, hidden_size)`, those of the spans it learns from."""
        self.center.data.copy_(sentence_vectors.mean(dim=0))
        self.scale.data.copy_(1.0 / sentence_vectors.std(dim=0).clamp(min=1e-3))

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
        words = (sentence_vectors.float() - self.center) * self.scale
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
