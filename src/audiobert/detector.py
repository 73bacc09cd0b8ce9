"""Detect which pieces of a text are about sound (section II-B1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from audiobert.bert import hidden_states
from audiobert.errors import InputError
from audiobert.sentence import Span, check_text, pad_tokens, spans_of_words, tokenize, windows

# The detector was trained on single sentences: a long text is read in windows of about their length.
WINDOW_TOKENS = 96
WINDOW_OVERLAP_TOKENS = 32
MAX_CHARACTERS = 2_000_000


def keep_first_layers(encoder: Any, count: int | None) -> None:
    """Take all layers but the first `count` away from a transformers encoder; None keeps them all.

    Raises
    ------
    InputError
        The encoder has fewer layers.
    """
    if count is None:
        return
    there = int(encoder.config.num_hidden_layers)
    if count > there:
        raise InputError(f"layers is {count}, but {type(encoder).__name__} has {there}; give at most that many")
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == there:
            del module[count:]
    encoder.config.num_hidden_layers = count


class SpanDetector:
    """Token classification with two labels, other and sound, on an encoder; character spans out.

    Parameters
    ----------
    encoder
        A transformers encoder with the detector's LoRA; returns hidden states.
    head : nn.Linear
        From hidden states to the two labels.
    tokenizer : PreTrainedTokenizerBase
        The encoder's, with character offsets.
    peak : float
        A span has at least one word whose probability reaches this: fewer false alarms, and spans stay whole.
    """

    def __init__(self, encoder: Any, head: nn.Linear, tokenizer: PreTrainedTokenizerBase, peak: float = 0.0) -> None:
        self.encoder, self.head, self.tokenizer, self.peak = encoder, head, tokenizer, peak
        self.mask_token: str | None = None  # in the texts, where that is not how this tokenizer spells masks
        self.max_tokens = int(min(WINDOW_TOKENS, tokenizer.model_max_length, encoder.config.max_position_embeddings))

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute label logits `(texts, tokens, 2)`."""
        return self.head(hidden_states(self.encoder, attention_mask, input_ids=input_ids))

    @torch.no_grad()
    def detect(self, texts: Sequence[str], *, batch_size: int = 64) -> list[list[Span]]:
        """Return the spans of each text, in the order of the text; none where nothing is about sound.

        A text longer than a window is read in overlapping windows; where two overlap, a word gets the probability from
        the window in which it stands further from the edge. Memory and time grow linearly with the text.
        """
        for text in texts:
            check_text(text)
            if len(text) > MAX_CHARACTERS:
                raise InputError(f"a text has {len(text):,} characters; give at most {MAX_CHARACTERS:,} at once")
        read = [self._with_own_mask(text) for text in texts]
        tokens = tokenize(self.tokenizer, read)
        probabilities = self._probabilities(tokens["input_ids"], batch_size)
        found = []
        for row, (text, scores) in enumerate(zip(texts, probabilities, strict=True)):
            found.append(self._spans(text, tokens["offset_mapping"][row], tokens.word_ids(row), scores))
        return found

    def _with_own_mask(self, text: str) -> str:
        """Spell masks as this tokenizer does, where that keeps the offsets ("<mask>" and "[MASK]" are equally long)."""
        own, theirs = self.tokenizer.mask_token, self.mask_token
        return text.replace(theirs, str(own)) if own and theirs and len(str(own)) == len(theirs) else text

    def _probabilities(self, rows: Sequence[list[int]], batch_size: int) -> list[np.ndarray]:
        """Return the probability of each token to be about sound, `(tokens,)` per text."""
        specials = self.tokenizer.num_special_tokens_to_add()
        first, last = (specials + 1) // 2, specials // 2  # special tokens before and behind a text
        size = self.max_tokens - specials
        pieces = [  # (text, first and last token without special tokens)
            (row, *window)
            for row, ids in enumerate(rows)
            for window in windows(len(ids) - specials, size, WINDOW_OVERLAP_TOKENS)
        ]
        found = [np.zeros(len(ids), dtype=np.float32) for ids in rows]
        margins = [np.full(len(ids), -1) for ids in rows]  # distance from the window's edge that a probability is from
        order = sorted(range(len(pieces)), key=lambda i: pieces[i][2] - pieces[i][1])
        for at in range(0, len(order), batch_size):
            chosen = [pieces[i] for i in order[at : at + batch_size]]
            inputs = [
                [*rows[row][:first], *rows[row][first + start : first + stop], *rows[row][len(rows[row]) - last :]]
                for row, start, stop in chosen
            ]
            ids, attention = (tensor.to(self.encoder.device) for tensor in pad_tokens(self.tokenizer, inputs))
            scores = self.logits(ids, attention).float().softmax(dim=-1)[..., 1].cpu().numpy()  # (windows, tokens)
            for own, (row, start, stop) in zip(scores, chosen, strict=True):
                place = slice(first + start, first + stop)
                inner = np.arange(stop - start)
                margin = np.minimum(inner, inner[::-1])
                better = margin > margins[row][place]
                found[row][place] = np.where(better, own[first : first + stop - start], found[row][place])
                margins[row][place] = np.maximum(margin, margins[row][place])
        return found

    def _spans(
        self, text: str, offsets: Sequence[tuple[int, int]], word_ids: Sequence[int | None], scores: np.ndarray
    ) -> list[Span]:
        """Join the tokens of a text to words and the words above the threshold to spans."""
        words: dict[int, list[int]] = {}
        for token, word in enumerate(word_ids):
            if word is not None:
                words.setdefault(word, []).append(token)
        found = [
            (word, offsets[tokens[0]][0], offsets[tokens[-1]][1], float(scores[tokens].mean()))
            for word, tokens in sorted(words.items())
        ]
        return spans_of_words(text, found, peak=self.peak)
