"""The rows of both tasks as sentences to learn from: answers to token ids, spans swapped, clips retrieved once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from audiobert.auditorybench.data import Row
from audiobert.inputs import Offsets

MASK = "[MASK]"
OPPOSITE = {"higher": "lower", "lower": "higher"}


@dataclass(frozen=True)
class Question:
    """A sentence with one mask a wordpiece of the answer, and the spans in it.

    Attributes
    ----------
    text
        With the tokenizer's own mask token.
    answer_ids
        Token ids of the answer, one a mask.
    spans
        Character offsets in `text`, in the order of the text.
    task, split, row
        Where it comes from.
    """

    text: str
    answer_ids: tuple[int, ...]
    spans: tuple[Offsets, ...]
    task: str
    split: str
    row: int

    @property
    def span_texts(self) -> tuple[str, ...]:
        return tuple(self.text[start:end] for start, end in self.spans)


def expand_mask(text: str, spans: Sequence[Offsets], mask: str) -> tuple[str, tuple[Offsets, ...]]:
    """Replace the first `[MASK]` by `mask` and move the spans along.

    >>> expand_mask("A [MASK] meows", [(9, 14)], "[MASK] [MASK]")
    ('A [MASK] [MASK] meows', ((16, 21),))
    """
    at, shift = text.index(MASK), len(mask) - len(MASK)
    moved = tuple((s + shift * (s > at), e + shift * (e > at)) for s, e in spans)
    return text.replace(MASK, mask, 1), moved


def swap_spans(text: str, spans: Sequence[Offsets]) -> tuple[str, tuple[Offsets, Offsets]]:
    """Exchange the texts of two spans that do not overlap.

    >>> swap_spans("a flute is [MASK] than a tuba", [(2, 7), (25, 29)])
    ('a tuba is [MASK] than a flute', ((2, 6), (24, 29)))
    """
    (a, b), (c, d) = sorted(spans)
    first, second = text[a:b], text[c:d]
    swapped = text[:a] + second + text[b:c] + first + text[d:]
    moved = len(second) - len(first)
    return swapped, ((a, a + len(second)), (c + moved, d))


def make_question(
    tokenizer: PreTrainedTokenizerBase, row: Row, spans: Sequence[Offsets], *, swap: bool = False
) -> Question:
    """A row as a question; with `swap` its two spans change places and the answer turns round."""
    text, answer = row.text, row.answer
    if swap:
        text, spans = swap_spans(text, spans)
        answer = OPPOSITE[answer.lower()]
    # As in the middle of the sentence: byte-level tokenizers have other tokens for a word behind a space.
    spaced = text[: text.index(MASK)].endswith(" ")
    ids = tokenizer(f" {answer}" if spaced else answer, add_special_tokens=False)["input_ids"]
    text, moved = expand_mask(text, sorted(spans), " ".join([tokenizer.mask_token] * len(ids)))
    return Question(text, tuple(ids), moved, row.task, row.split, row.row)


def can_swap(row: Row, spans: Sequence[Offsets]) -> bool:
    """Whether a row is a comparison of two spans that do not overlap each other or the mask."""
    if row.answer.lower() not in OPPOSITE or len(spans) != 2:
        return False
    (_, b), (c, _) = sorted(spans)
    mask_at = row.text.index(MASK)
    return b <= c and all(end <= mask_at or start >= mask_at + len(MASK) for start, end in spans)
