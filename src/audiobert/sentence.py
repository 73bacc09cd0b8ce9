"""Move masks, spans and windows of sentences. The only code that moves character offsets and tokenizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from audiobert.errors import InputError

MASK = "[MASK]"
Offsets = tuple[int, int]  # first character, and the one behind the last


@dataclass(frozen=True)
class Span:
    """A piece of a text about sound, `text == sentence[start:end]`, and the detector's mean probability for it."""

    text: str
    start: int
    end: int
    score: float = 1.0

    def to_json(self) -> dict[str, object]:
        """Return a JSON object; the score is rounded."""
        return {"text": self.text, "start": self.start, "end": self.end, "score": round(self.score, 4)}


# --- editing a text and moving its spans along ------------------------------------------------------------------------


def replace_text(text: str, place: Offsets, new: str, spans: Sequence[Offsets] = ()) -> tuple[str, list[Offsets]]:
    """Replace the characters of `place` by `new` and move the spans along; a span over the place grows with it.

    >>> replace_text("A [MASK] meows", (2, 8), "big cat", [(9, 14)])
    ('A big cat meows', [(10, 15)])
    """
    start, end = place
    shift = len(new) - (end - start)
    moved = []
    for first, stop in spans:
        if stop <= start:
            moved.append((first, stop))
        elif first >= end:
            moved.append((first + shift, stop + shift))
        else:
            moved.append((min(first, start), max(stop, end) + shift))
    return text[:start] + new + text[end:], moved


def fill_mask(text: str, spans: Sequence[Offsets], filler: str) -> tuple[str, list[Offsets]]:
    """Replace the first `[MASK]` of a text by `filler` and move the spans along.

    >>> fill_mask("A [MASK] meows", [(9, 14)], "<mask> <mask>")
    ('A <mask> <mask> meows', [(16, 21)])
    """
    at = text.index(MASK)
    return replace_text(text, (at, at + len(MASK)), filler, spans)


# --- tokens -----------------------------------------------------------------------------------------------------------


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special: bool = True) -> BatchEncoding:
    """Tokenize texts with their offsets, neither padded nor cut; without `special` nothing is put around them.

    Padding and truncation of a fast tokenizer are state that all threads share, so they are never switched on:
    `pad_tokens` and `windows` do both on the token ids.
    """
    if not texts:
        return BatchEncoding({"input_ids": [], "offset_mapping": []}, encoding=[])
    return tokenizer(
        list(texts),
        padding=False,
        truncation=False,
        add_special_tokens=special,
        return_offsets_mapping=True,
        verbose=False,
        return_attention_mask=False,
    )


def pad_tokens(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], max_tokens: int | None = None
) -> tuple[Tensor, Tensor]:
    """Pad token ids to one length; a row longer than `max_tokens` keeps its beginning and its last (special) token.

    Returns
    -------
    tuple of Tensor
        Token ids and attention mask, both `(rows, tokens)` int64.
    """
    kept = [
        list(ids) if max_tokens is None or len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]] for ids in rows
    ]
    width = max(map(len, kept), default=0)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.tensor([row + [padding] * (width - len(row)) for row in kept], dtype=torch.int64)
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in kept], dtype=torch.int64)
    return ids.reshape(len(kept), width), attention.reshape(len(kept), width)


def query_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Tokenize queries; token ids and attention mask, both `(texts, tokens)`, a longer text cut as by `pad_tokens`."""
    return pad_tokens(tokenizer, tokenize(tokenizer, texts)["input_ids"], max_tokens)


def windows(length: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of `size` positions that overlap and cover `length`, the last one flush with the end.

    >>> list(windows(10, 6, 2))
    [(0, 6), (4, 10)]
    """
    start = 0
    while True:
        stop = min(length, start + size)
        yield start, stop
        if stop >= length:
            return
        start = min(start + max(1, size - overlap), length - size)


def token_range(offsets: np.ndarray, span: Offsets) -> tuple[int, int]:
    """Return the first token that overlaps a character span and the token behind the last one; (-1, -1) for none.

    >>> token_range(np.array([(0, 0), (0, 4), (5, 7), (0, 0)]), (0, 7))
    (1, 3)
    """
    inside = np.flatnonzero((offsets[:, 1] > offsets[:, 0]) & (offsets[:, 0] < span[1]) & (offsets[:, 1] > span[0]))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (-1, -1)


def token_labels(offsets: Sequence[Offsets], spans: Sequence[Offsets]) -> np.ndarray:
    """Mark the tokens that lie in a span, `(tokens,)` int64 of 0 and 1; special tokens (empty offsets) are 0.

    >>> token_labels([(0, 0), (0, 4), (5, 7)], [(0, 4)]).tolist()
    [0, 1, 0]
    """
    return np.array(
        [int(end > start and any(start < stop and end > first for first, stop in spans)) for start, end in offsets],
        dtype=np.int64,
    )


def spans_of_words(
    text: str, words: Sequence[tuple[int, int, int, float]], threshold: float = 0.5, peak: float = 0.0
) -> list[Span]:
    """Join runs of neighbouring words whose probability is above the threshold to spans.

    Parameters
    ----------
    words : sequence of (int, int, int, float)
        Number of the word, its first character, the one behind its last, and its probability, in the order of the text.
    peak
        Probability that at least one word of a span must reach.
    """
    runs: list[list[tuple[int, int, int, float]]] = []
    for word in words:
        if word[3] > threshold:
            if runs and runs[-1][-1][0] == word[0] - 1:
                runs[-1].append(word)
            else:
                runs.append([word])
    spans = [
        Span(text[run[0][1] : run[-1][2]], run[0][1], run[-1][2], float(np.mean([score for *_, score in run])))
        for run in runs
        if max(score for *_, score in run) >= peak
    ]
    return [span for span in spans if any(character.isalnum() for character in span.text)]


# --- what the language model reads ------------------------------------------------------------------------------------


@dataclass
class Inputs:
    """A batch of texts as tensors.

    Attributes
    ----------
    input_ids, attention_mask
        `(rows, tokens)` int64.
    masks
        `(rows, tokens)` bool, where the model predicts: at mask tokens; of a causal model, at the token before each one
        that is predicted.
    starts, ends
        `(rows, spans)` int64, first token of each span and the token behind its last; -1 for no span.
    """

    input_ids: Tensor
    attention_mask: Tensor
    masks: Tensor
    starts: Tensor
    ends: Tensor

    def to(self, device: torch.device | str) -> Inputs:
        """Return the inputs on a device."""
        return Inputs(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], spans: Sequence[Sequence[Offsets]] | None = None
) -> Inputs:
    """Tokenize texts in which masks are spelled as the tokenizer's own mask token.

    Parameters
    ----------
    spans : sequence of sequences of (int, int), optional
        Character spans of each text; the order is kept.
    """
    tokens = tokenize(tokenizer, texts)
    ids, attention_mask = pad_tokens(tokenizer, tokens["input_ids"])
    return Inputs(ids, attention_mask, ids == tokenizer.mask_token_id, *_span_tokens(tokens, spans))


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    spans: Sequence[Sequence[Offsets]] | None = None,
    answers: Sequence[Sequence[int]] | None = None,
    *,
    special: bool = True,
) -> Inputs:
    """Tokenize prompts of a causal language model, with the token ids of their answers behind them.

    Parameters
    ----------
    spans : sequence of sequences of (int, int), optional
        Character spans of each prompt; the order is kept.
    answers : sequence of sequences of int, optional
        Marked as predicted; of none, the first token behind the prompt is.
    special : bool
        Put the tokenizer's special tokens around the prompt; a chat template has its own.
    """
    tokens = tokenize(tokenizer, prompts, special=special)
    behind = answers or [(0,)] * len(prompts)
    ids, attention_mask = pad_tokens(
        tokenizer, [[*prompt, *answer[:-1]] for prompt, answer in zip(tokens["input_ids"], behind, strict=True)]
    )
    masks = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(tokens["input_ids"], behind, strict=True)):
        masks[row, len(prompt) - 1 : len(prompt) - 1 + len(answer)] = True
    return Inputs(ids, attention_mask, masks, *_span_tokens(tokens, spans))


def encode_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, *, special: bool = True
) -> tuple[list[int], list[int]]:
    """Return the token ids of a prompt and of what follows it.

    Spaces at the prompt's end go to what follows, but not those of a chat template, which has special tokens of its own
    (`special=False`).
    """
    whole = tokenizer.encode(prompt + answer, add_special_tokens=special)
    context = tokenizer.encode(prompt.rstrip() if special else prompt, add_special_tokens=special)
    return context, whole[len(context) :]


def _span_tokens(tokens: BatchEncoding, spans: Sequence[Sequence[Offsets]] | None) -> tuple[Tensor, Tensor]:
    """Return first token and the token behind the last of each span, both `(texts, spans)`; -1 for no span."""
    spans = spans or [()] * len(tokens["input_ids"])
    most = max((len(row) for row in spans), default=0)
    ranges = np.full((len(spans), most, 2), -1, dtype=np.int64)
    for row, (offsets, row_spans) in enumerate(zip(tokens["offset_mapping"], spans, strict=True)):
        places = np.array(offsets)
        for column, span in enumerate(row_spans):
            ranges[row, column] = token_range(places, span)
    starts, ends = torch.from_numpy(ranges).unbind(dim=-1)
    return starts, ends


@dataclass(frozen=True)
class Sentence:
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
        """Return the character offsets in `original` of a span of `text`."""
        return self._moved(start, 0, 1), self._moved(end, 0, 1)

    def to_text(self, start: int, end: int) -> Offsets:
        """Return the character offsets in `text` of a span of `original`; empty where it was cut off."""
        return self._moved(start, 1, 0), self._moved(end, 1, 0)

    def _moved(self, at: int, source: int, target: int) -> int:
        moved = self.pieces[0][target]
        for piece in self.pieces:
            if at < piece[source]:
                break
            moved = piece[target] + min(at - piece[source], piece[2])
        return moved


def read_sentence(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> Sentence:
    """Find the masks of a text and cut it to the model's window around them.

    A mask is `[MASK]` in any letter case, or the tokenizer's own mask token. A text longer than the window loses what
    is furthest from its masks.

    Raises
    ------
    InputError
        The text is no string, is empty, has no mask, or its masks stand too far apart to be read at once.
    """
    check_text(text)
    if not text.strip():
        raise InputError("the text is empty; give a sentence with [MASK] in it")
    pattern = re.compile(rf"\[mask\]|{re.escape(str(tokenizer.mask_token))}", re.IGNORECASE)
    found = list(pattern.finditer(text))
    if not found:
        raise InputError(f"no [MASK] in {shortened(text)!r}; write [MASK] where a word is to be predicted")
    rendered, pieces, at = "", [], 0
    for match in found:
        pieces.append((len(rendered), at, match.start() - at))
        rendered += text[at : match.start()] + str(tokenizer.mask_token)
        at = match.end()
    pieces.append((len(rendered), at, len(text) - at))
    rendered += text[at:]
    start, end = _window(tokenizer, rendered, max_tokens)
    cut = []
    for new, old, length in pieces:
        first, last = max(new, start), min(new + length, end)
        cut.append((first - start, old + first - new, last - first))
    return Sentence(text, rendered[start:end], tuple(cut), len(found))


def _window(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> Offsets:
    """Return the character range of `text` that fits the model and holds all masks, with as much on both sides."""
    tokens = tokenize(tokenizer, [text], special=False)
    ids, offsets = tokens["input_ids"][0], tokens["offset_mapping"][0]
    size = budget = max_tokens - tokenizer.num_special_tokens_to_add()
    if len(ids) <= budget:
        return 0, len(text)
    masks = [place for place, token in enumerate(ids) if token == tokenizer.mask_token_id]
    least = masks[-1] - masks[0] + 1
    if least > budget:
        raise InputError(
            f"the masks of {shortened(text)!r} stand {least - 1} tokens apart, the model reads {budget} at"
            " once; give them in separate texts"
        )
    while True:
        first = max(0, min(masks[0] - (size - least) // 2, len(ids) - size))
        start, end = offsets[first][0], offsets[first + size - 1][1]
        # The rest of a word that is cut may have more tokens than it had within the word.
        excess = len(tokenize(tokenizer, [text[start:end]], special=False)["input_ids"][0]) - budget
        if excess <= 0 or size == least:
            return start, end
        size = max(least, size - excess)


def check_text(text: object) -> None:
    """Refuse what is no text that can be encoded."""
    if not isinstance(text, str):
        raise InputError(f"a text is of type {type(text).__name__}; give a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text {shortened(ascii(text))} has a lone surrogate at character {error.start}; give valid Unicode"
        ) from None


def shortened(text: str, length: int = 60) -> str:
    """Return the text on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
