"""From texts with masks and spans to the tensors that the language model takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from audiobert.errors import InputError

Offsets = tuple[int, int]


@dataclass
class Inputs:
    """A batch of texts as tensors.

    Attributes
    ----------
    input_ids, attention_mask
        `(rows, tokens)` int64.
    masks
        `(rows, tokens)` bool, where a mask token stands.
    starts, ends
        `(rows, spans)` int64, first token of each span and the token behind its last; -1 for no span.
    """

    input_ids: Tensor
    attention_mask: Tensor
    masks: Tensor
    starts: Tensor
    ends: Tensor

    def to(self, device: torch.device | str) -> Inputs:
        return Inputs(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def token_range(offsets: np.ndarray, span: Offsets) -> tuple[int, int]:
    """First token that overlaps a character span, and the token behind the last one; (-1, -1) when none does.

    >>> token_range(np.array([(0, 0), (0, 4), (5, 7), (0, 0)]), (0, 7))
    (1, 3)
    """
    inside = np.flatnonzero((offsets[:, 1] > offsets[:, 0]) & (offsets[:, 0] < span[1]) & (offsets[:, 1] > span[0]))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (-1, -1)


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    spans: Sequence[Sequence[Offsets]] | None = None,
    *,
    max_tokens: int | None = None,
) -> Inputs:
    """Tokenize texts in which masks are spelled as the tokenizer's own mask token.

    Parameters
    ----------
    spans : sequence of sequences of (int, int), optional
        Character spans of each text; the order is kept.
    max_tokens : int, optional
        Texts are cut there; not cut when None.
    """
    tokens = tokenizer(
        list(texts),
        padding=True,
        truncation=max_tokens is not None,
        max_length=max_tokens,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    spans = spans or [()] * len(texts)
    most = max((len(row) for row in spans), default=0)
    ranges = np.full((len(texts), most, 2), -1, dtype=np.int64)
    for row, (offsets, row_spans) in enumerate(zip(tokens["offset_mapping"].numpy(), spans, strict=True)):
        for column, span in enumerate(row_spans):
            ranges[row, column] = token_range(offsets, span)
    starts, ends = torch.from_numpy(ranges).unbind(dim=-1)
    ids = tokens["input_ids"]
    return Inputs(ids, tokens["attention_mask"], ids == tokenizer.mask_token_id, starts, ends)


@dataclass(frozen=True)
class Prepared:
    """A user's text with its masks spelled as the tokenizer spells them, cut to what the model reads at once.

    Attributes
    ----------
    original
        The text as it was given.
    text
        What the model reads.
    pieces
        `(start in text, start in original, length)` of the stretches that both have in common.
    masks
        Number of masks.
    """

    original: str
    text: str
    pieces: tuple[tuple[int, int, int], ...]
    masks: int

    def to_original(self, start: int, end: int) -> Offsets:
        """Character offsets in `original` of a span of `text`."""
        return self._moved(start, 0, 1), self._moved(end, 0, 1)

    def to_text(self, start: int, end: int) -> Offsets:
        """Character offsets in `text` of a span of `original`; empty where it was cut off."""
        return self._moved(start, 1, 0), self._moved(end, 1, 0)

    def _moved(self, at: int, source: int, target: int) -> int:
        moved = self.pieces[0][target]
        for piece in self.pieces:
            if at < piece[source]:
                break
            moved = piece[target] + min(at - piece[source], piece[2])
        return moved


def prepare(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> Prepared:
    """Find the masks of a text and cut it to the model's window around them.

    A mask is `[MASK]` in any letter case, or the tokenizer's own mask token. A text longer than the window loses what
    is furthest from its masks.

    Raises
    ------
    InputError
        The text is empty, has no mask, or its masks stand too far apart to be read at once.
    """
    if not text.strip():
        raise InputError("the text is empty; give a sentence with [MASK] in it")
    pattern = re.compile(rf"\[mask\]|{re.escape(tokenizer.mask_token)}", re.IGNORECASE)
    found = list(pattern.finditer(text))
    if not found:
        raise InputError(f"no [MASK] in {shortened(text)!r}; write [MASK] where a word is to be predicted")
    rendered, pieces, at = "", [], 0
    for match in found:
        pieces.append((len(rendered), at, match.start() - at))
        rendered += text[at : match.start()]
        pieces.append((len(rendered), match.start(), min(len(match.group()), len(tokenizer.mask_token))))
        rendered += tokenizer.mask_token
        at = match.end()
    pieces.append((len(rendered), at, len(text) - at))
    rendered += text[at:]
    start, end = _window(tokenizer, rendered, max_tokens)
    cut = []
    for new, old, length in pieces:
        first, last = max(new, start), min(new + length, end)
        if first <= last:
            cut.append((first - start, old + first - new, last - first))
    return Prepared(text, rendered[start:end], tuple(cut), len(found))


def _window(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> Offsets:
    """Character range of `text` that fits the model and holds all masks."""
    if len(text) <= max_tokens - 2:  # no token is shorter than a character
        return 0, len(text)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    budget = max_tokens - tokenizer.num_special_tokens_to_add()
    offsets = tokens["offset_mapping"]
    if len(offsets) <= budget:
        return 0, len(text)
    masks = [i for i, token in enumerate(tokens["input_ids"]) if token == tokenizer.mask_token_id]
    if masks[-1] - masks[0] >= budget:
        raise InputError(
            f"the masks of {shortened(text)!r} stand {masks[-1] - masks[0]} tokens apart, the model reads {budget} at"
            " once; ask about them one by one"
        )
    middle = (masks[0] + masks[-1]) // 2
    first = max(0, min(middle - budget // 2, len(offsets) - budget))
    return offsets[first][0], offsets[first + budget - 1][1]


def shortened(text: str, length: int = 60) -> str:
    """The text on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
