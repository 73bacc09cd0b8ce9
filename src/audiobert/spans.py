"""Spans: pieces of a text that are about sound, as character offsets; from token labels and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """A piece of a text, `text == sentence[start:end]`, and the detector's mean probability for it."""

    text: str
    start: int
    end: int
    score: float = 1.0

    def to_json(self) -> dict[str, object]:
        return {"text": self.text, "start": self.start, "end": self.end, "score": round(self.score, 4)}


def token_labels(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which tokens lie in a span, `(tokens,)` int64 of 0 and 1; special tokens (empty offsets) are 0.

    >>> token_labels([(0, 0), (0, 4), (5, 7)], [(0, 4)]).tolist()
    [0, 1, 0]
    """
    return np.array(
        [int(end > start and any(start < stop and end > first for first, stop in spans)) for start, end in offsets],
        dtype=np.int64,
    )


def spans_of_words(
    text: str,
    offsets: Sequence[tuple[int, int]],
    word_ids: Sequence[int | None],
    probabilities: np.ndarray,
    threshold: float = 0.5,
) -> list[Span]:
    """Spans from token probabilities: runs of words whose mean probability over their pieces is above the threshold.

    Parameters
    ----------
    offsets : sequence of (int, int)
        Character offsets of the tokens.
    word_ids : sequence of int or None
        The word of each token; None for special tokens.
    probabilities : np.ndarray
        `(tokens,)`, the probability that a token is about sound.
    """
    words: dict[int, list[int]] = {}
    for index, word in enumerate(word_ids):
        if word is not None:
            words.setdefault(word, []).append(index)
    runs: list[list[tuple[int, int, float]]] = []
    last_word = None
    for word in sorted(words):
        pieces = words[word]
        score = float(np.mean(probabilities[pieces]))
        if score > threshold:
            piece = (offsets[pieces[0]][0], offsets[pieces[-1]][1], score)
            if runs and last_word == word - 1:
                runs[-1].append(piece)
            else:
                runs.append([piece])
            last_word = word
    spans = []
    for run in runs:
        start, end = run[0][0], run[-1][1]
        spans.append(Span(text[start:end], start, end, float(np.mean([score for _, _, score in run]))))
    return [span for span in spans if any(character.isalnum() for character in span.text)]
