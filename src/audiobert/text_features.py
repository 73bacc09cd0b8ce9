"""What spans and sentences are scored by: sentence vectors of the plain backbone, and hashed n-grams."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from audiobert.clap import mean_pooled

NGRAMS = 1 << 15  # buckets that n-grams are hashed into; the one behind the last is for padding
WORD_NGRAMS = (1, 2)
CHARACTER_NGRAMS = (2, 3, 4, 5)


def text_ngrams(text: str) -> list[int]:
    """Buckets of the distinct n-grams of a text: words and pairs of words, and characters within words, case-folded.

    >>> text_ngrams("Bass") == text_ngrams("bass")
    True
    """
    words = ["".join(c for c in word if c.isalnum() or c in "'-") for word in text.casefold().split()]
    words = [word for word in words if word]
    grams = {"w" + " ".join(words[i : i + n]) for n in WORD_NGRAMS for i in range(len(words) - n + 1)}
    for word in (f" {word} " for word in words):
        grams |= {f"c{word[i : i + n]}" for n in CHARACTER_NGRAMS for i in range(max(1, len(word) - n + 1))}
    return sorted({zlib.crc32(gram.encode()) % NGRAMS for gram in grams})


def pad_ngrams(texts: Sequence[Sequence[int]]) -> Tensor:
    """Buckets of texts as one tensor `(texts, n)` int64, padded with `NGRAMS`."""
    width = max((len(text) for text in texts), default=0)
    padded = torch.full((len(texts), max(1, width)), NGRAMS, dtype=torch.int64)
    for row, text in enumerate(texts):
        padded[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
    return padded


@dataclass
class TextFeatures:
    """What texts are scored by.

    Attributes
    ----------
    sentence_vectors
        `(..., hidden_size)`, the mean of the backbone's last hidden states over each text, without any adapter.
    ngrams
        `(..., n)` buckets of their n-grams, padded with `NGRAMS`.
    """

    sentence_vectors: Tensor
    ngrams: Tensor

    def to(self, device: torch.device | str) -> TextFeatures:
        return TextFeatures(self.sentence_vectors.to(device), self.ngrams.to(device))

    def at(self, where: Tensor) -> TextFeatures:
        """The texts `where` (...) of a list; negative ones are none, of nothing."""
        vectors = self.sentence_vectors[where].masked_fill((where < 0).unsqueeze(-1), 0.0)
        ngrams = self.ngrams[where].masked_fill((where < 0).unsqueeze(-1), NGRAMS)
        most = int((ngrams != NGRAMS).sum(dim=-1).amax()) if ngrams.numel() else 0
        return TextFeatures(vectors, ngrams[..., : max(1, most)])


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


class TextScorer(nn.Module):
    """What scores texts by their sentence vectors, standardised over those that it learns from."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.zeros(hidden_size), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(hidden_size), requires_grad=False)

    def standardise(self, sentence_vectors: Tensor) -> None:
        """Take mean and standard deviation from vectors `(texts, hidden_size)`, those of the texts it learns from."""
        self.center.data.copy_(sentence_vectors.mean(dim=0))
        self.scale.data.copy_(1.0 / sentence_vectors.std(dim=0).clamp(min=1e-3))

    def standardised(self, sentence_vectors: Tensor) -> Tensor:
        """Vectors `(..., hidden_size)` float32 of mean 0 and standard deviation 1."""
        return (sentence_vectors.float() - self.center) * self.scale


class ScoredTexts:
    """What each of some texts is scored by; letter case does not matter.

    Parameters
    ----------
    names
        All texts that will be asked for, in lower case.
    vectors : Tensor
        Their sentence vectors `(names, hidden_size)`.
    """

    def __init__(self, names: Sequence[str], vectors: Tensor) -> None:
        self._index = {name: index for index, name in enumerate(names)}
        self._words = TextFeatures(vectors, pad_ngrams([text_ngrams(name) for name in names]))

    def of(self, rows: Sequence[Sequence[str]]) -> TextFeatures:
        """What the spans of rows are scored by, `(rows, spans, ...)`; rows of fewer spans are padded with none."""
        where = torch.full((len(rows), max((len(row) for row in rows), default=0)), -1)
        for row, texts in enumerate(rows):
            where[row, : len(texts)] = torch.tensor([self._index[text.lower()] for text in texts], dtype=torch.int64)
        return self._words.at(where)

    def of_texts(self, texts: Sequence[str]) -> TextFeatures:
        """What each of some texts is scored by, `(texts, ...)`."""
        return self._words.at(torch.tensor([self._index[text.lower()] for text in texts], dtype=torch.int64))

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Sentence vectors `(texts, hidden_size)`."""
        return self._words.sentence_vectors[[self._index[text.lower()] for text in texts]]
