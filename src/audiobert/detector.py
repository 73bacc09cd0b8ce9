"""`SpanDetector`: which pieces of a text are about sound (section II-B1)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from audiobert.spans import Span, spans_of_words

# The detector learnt from single sentences: in a long text it reads about as much at once as it did in training.
WINDOW_TOKENS = 96
WINDOW_OVERLAP_TOKENS = 32


class Switch(Protocol):
    """Gives a context in which the detector's adapter is the one that is on."""

    def __call__(self) -> AbstractContextManager[None]: ...


class SpanDetector:
    """Token classification with two labels on an encoder; character spans out.

    Parameters
    ----------
    encoder
        A transformers encoder; returns hidden states; with `switch` on, those that the head was trained on.
    head : nn.Linear
        From hidden states to the two labels, other and sound.
    tokenizer : PreTrainedTokenizerBase
        The encoder's, with character offsets.
    threshold : float
        A word belongs to a span when its probability is above this.
    mask_token : str, optional
        How masks are spelled in the texts, where that is not how this tokenizer spells them.
    """

    def __init__(
        self,
        encoder: Any,
        head: nn.Linear,
        tokenizer: PreTrainedTokenizerBase,
        switch: Switch,
        threshold: float = 0.5,
        mask_token: str | None = None,
    ) -> None:
        self.encoder, self.head, self.tokenizer, self.switch = encoder, head, tokenizer, switch
        self.threshold, self.mask_token = threshold, mask_token
        self.max_tokens = int(min(WINDOW_TOKENS, tokenizer.model_max_length, encoder.config.max_position_embeddings))

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Label logits `(texts, tokens, 2)`."""
        return self.head(self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)

    @torch.no_grad()
    def detect(self, texts: Sequence[str], *, batch_size: int = 64) -> list[list[Span]]:
        """The spans of each text, in the order of the text; none where nothing is about sound.

        A text longer than `WINDOW_TOKENS` is read in overlapping windows; where two overlap, a token counts as it
        does in the window in which it stands further from the edge.
        """
        own, theirs = self.tokenizer.mask_token, self.mask_token
        if own and theirs and len(own) == len(theirs):  # "<mask>" and "[MASK]": offsets stay
            texts = [text.replace(theirs, own) for text in texts]
        found: list[list[Span]] = [[] for _ in texts]
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(texts[i]))
        with self.switch():
            for start in range(0, len(order), batch_size):
                members = order[start : start + batch_size]
                for member, spans in zip(members, self._detect_batch([texts[i] for i in members]), strict=True):
                    found[member] = spans
        return found

    def _detect_batch(self, texts: list[str]) -> list[list[Span]]:
        windows = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            stride=WINDOW_OVERLAP_TOKENS,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        device = self.encoder.device
        logits = self.logits(windows["input_ids"].to(device), windows["attention_mask"].to(device))
        probabilities = logits.float().softmax(dim=-1)[..., 1].cpu().numpy()  # (windows, tokens)
        owners = windows["overflow_to_sample_mapping"].tolist()
        # word -> (distance from the window's edge, its tokens' offsets and probabilities)
        words: list[dict[int, tuple[int, list[tuple[tuple[int, int], float]]]]] = [{} for _ in texts]
        for window, owner in enumerate(owners):
            offsets = windows["offset_mapping"][window].tolist()
            word_ids = windows.word_ids(window)
            length = int(windows["attention_mask"][window].sum())
            here: dict[int, tuple[int, list[tuple[tuple[int, int], float]]]] = {}
            for token, word in enumerate(word_ids):
                if word is not None:
                    edge = min(token, length - token)
                    here.setdefault(word, (edge, []))[1].append((tuple(offsets[token]), probabilities[window, token]))
            for word, entry in here.items():
                if word not in words[owner] or words[owner][word][0] < entry[0]:
                    words[owner][word] = entry
        result = []
        for text, by_word in zip(texts, words, strict=True):
            pieces = [(word, *piece) for word in sorted(by_word) for piece in by_word[word][1]]
            result.append(
                spans_of_words(
                    text,
                    [offset for _, offset, _ in pieces],
                    [word for word, _, _ in pieces],
                    np.array([probability for _, _, probability in pieces]),
                    self.threshold,
                )
            )
        return result
