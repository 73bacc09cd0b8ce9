"""Sentences to learn from, as batches of tensors: text, answer, spans, and what is known of each span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from audiobert.injection import NO_CLIP
from audiobert.sentence import Inputs, Offsets, encode_prompts, encode_texts

NO_QUERY = -1


@dataclass(frozen=True)
class SpanClips:
    """The clips of one span: numbers of training clips `(clips,)` and their retrieval scores, the best first.

    `query` is the number of the span's sentence vector, `NO_QUERY` where nothing is to be imagined.
    """

    rows: np.ndarray
    scores: np.ndarray
    query: int = NO_QUERY

    def unheard(self) -> SpanClips:
        """Return the same query without clips."""
        return SpanClips(NOTHING.rows, NOTHING.scores, self.query)

    def with_query(self, query: int) -> SpanClips:
        """Return the same clips for another query."""
        return SpanClips(self.rows, self.scores, query)


NOTHING = SpanClips(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


@dataclass(frozen=True)
class Example:
    """One training sentence.

    Attributes
    ----------
    text
        With one of the tokenizer's masks per wordpiece of the answer; the prompt of a causal language model.
    answer
        Token ids of the answer, one per mask, or those that follow the prompt.
    spans
        Character offsets in `text`, in the order of the text.
    clips
        What is known of each span.
    opposite
        Token id of the other word of a comparison, where both are one wordpiece; else None.
    """

    text: str
    answer: tuple[int, ...]
    spans: tuple[Offsets, ...]
    clips: tuple[SpanClips, ...]
    opposite: int | None = None


@dataclass
class Batch:
    """Examples as tensors.

    Attributes
    ----------
    answers, opposites
        `(masks,)` token ids; an opposite is -1 where there is none, as at an answer's later tokens.
    clips, scores
        `(rows, spans, clips)` numbers of training clips (on the CPU) and their scores; `NO_CLIP` for padding.
    queries
        `(rows, spans, text_dim)` sentence vectors, zero for none.
    seed
        What is random in the objective of this batch is drawn from it.
    """

    inputs: Inputs
    answers: Tensor
    opposites: Tensor
    clips: Tensor
    scores: Tensor
    queries: Tensor
    seed: int = 0

    def to(self, device: torch.device | str) -> Batch:
        """Move what the model computes with; the clips' numbers stay where the clips are."""
        moved = {
            name: getattr(self, name).to(device) for name in ("inputs", "answers", "opposites", "scores", "queries")
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class BatchMaker:
    """Makes batches of examples.

    Parameters
    ----------
    queries : np.ndarray
        `(queries, text_dim)`, the sentence vectors that `SpanClips.query` numbers.
    causal : bool
        Answers stand behind the texts, not at masks in them.
    """

    tokenizer: PreTrainedTokenizerBase
    clips_per_span: int
    queries: np.ndarray
    causal: bool = False

    def __call__(self, examples: Sequence[Example], seed: int = 0) -> Batch:
        """Return the batch of examples; `seed` is kept with it."""
        texts, places = [one.text for one in examples], [one.spans for one in examples]
        if self.causal:
            inputs = encode_prompts(self.tokenizer, texts, places, [one.answer for one in examples])
        else:
            inputs = encode_texts(self.tokenizer, texts, places)
        spans = inputs.starts.shape[1]
        clips = np.zeros((len(examples), spans, self.clips_per_span), dtype=np.int64)
        scores = np.full(clips.shape, NO_CLIP, dtype=np.float32)
        queries = np.zeros((len(examples), spans, self.queries.shape[1]), dtype=np.float32)
        for row, example in enumerate(examples):
            for column, known in enumerate(example.clips):
                count = min(len(known.rows), self.clips_per_span)
                clips[row, column, :count] = known.rows[:count]
                scores[row, column, :count] = known.scores[:count]
                if known.query != NO_QUERY:
                    queries[row, column] = self.queries[known.query]
        return Batch(
            inputs,
            torch.tensor([token for one in examples for token in one.answer]),
            torch.tensor(
                [
                    -1 if one.opposite is None or place else one.opposite
                    for one in examples
                    for place in range(len(one.answer))
                ]
            ),
            torch.from_numpy(clips),
            torch.from_numpy(scores),
            torch.from_numpy(queries),
            seed,
        )
