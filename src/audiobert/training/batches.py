"""Sentences to learn from, as batches of tensors: text, answer, spans, and the clips of each span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from audiobert.injection import NO_CLIP
from audiobert.sentence import Inputs, Offsets, encode_texts


@dataclass(frozen=True)
class SpanClips:
    """The clips of one span: numbers of training clips `(clips,)` and their retrieval scores, the best first."""

    rows: np.ndarray
    scores: np.ndarray


NOTHING = SpanClips(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


@dataclass(frozen=True)
class Example:
    """One training sentence.

    Attributes
    ----------
    text
        With one of the tokenizer's masks per wordpiece of the answer.
    answer
        Token ids of the answer, one per mask.
    spans
        Character offsets in `text`, in the order of the text.
    clips
        The clips of each span; `NOTHING` where the model must read.
    """

    text: str
    answer: tuple[int, ...]
    spans: tuple[Offsets, ...]
    clips: tuple[SpanClips, ...]


@dataclass
class Batch:
    """Examples as tensors.

    Attributes
    ----------
    answers
        `(masks,)` token ids.
    clips, scores
        `(rows, spans, clips)` numbers of training clips (on the CPU) and their scores; `NO_CLIP` for padding.
    seed
        What is random in the objective of this batch is drawn from it.
    """

    inputs: Inputs
    answers: Tensor
    clips: Tensor
    scores: Tensor
    seed: int = field(default=0)

    def to(self, device: torch.device | str) -> Batch:
        """Move what the model computes with; the clips' numbers stay where the clips are."""
        moved = {name: getattr(self, name).to(device) for name in ("inputs", "answers", "scores")}
        return replace(self, **moved)


@dataclass(frozen=True)
class BatchMaker:
    """Makes batches of examples for one tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    clips_per_span: int

    def __call__(self, examples: Sequence[Example], seed: int = 0) -> Batch:
        inputs = encode_texts(self.tokenizer, [one.text for one in examples], [one.spans for one in examples])
        spans = inputs.starts.shape[1]
        clips = np.zeros((len(examples), spans, self.clips_per_span), dtype=np.int64)
        scores = np.full(clips.shape, NO_CLIP, dtype=np.float32)
        for row, example in enumerate(examples):
            for column, found in enumerate(example.clips):
                count = min(len(found.rows), self.clips_per_span)
                clips[row, column, :count] = found.rows[:count]
                scores[row, column, :count] = found.scores[:count]
        answers = torch.tensor([token for one in examples for token in one.answer])
        return Batch(inputs, answers, torch.from_numpy(clips), torch.from_numpy(scores), seed)
