"""Batch training sentences as tensors: text, answer, spans, and what is known of each span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from audiobert.injection import NO_CLIP, InjectionSettings
from audiobert.relatives import name_weights
from audiobert.sentence import Inputs, Offsets, encode_prompts, encode_texts


@dataclass(frozen=True)
class SpanClips:
    """Knowledge of one span.

    Attributes
    ----------
    rows, scores
        `(clips,)` numbers of training clips and their retrieval scores, the best first.
    names, cosines
        `(names,)` numbers of the nearest names and their cosines with the query, the nearest first.
    """

    rows: np.ndarray
    scores: np.ndarray
    names: np.ndarray
    cosines: np.ndarray


_AT_FIRST_TOKEN = InjectionSettings()
_NONE, _NO_SCORES = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
NOTHING = SpanClips(_NONE, _NO_SCORES, _NONE, _NO_SCORES)


def given_clip(index: int, score: float) -> SpanClips:
    """Return one clip that is given for a span, not looked up."""
    return SpanClips(np.array([index]), np.array([score], dtype=np.float32), _NONE, _NO_SCORES)


@dataclass(frozen=True)
class TrainingNames:
    """The distinct names of the training clips.

    Attributes
    ----------
    vectors
        `(names, text_dim)` sentence vectors of unit norm.
    groups
        `(names,)` number of the kind that a name belongs to.
    of_clips
        `(pairs, 2)` int64, each a name and a clip that is known by it and may be learnt from.
    dropout
        Share of the kinds that are left out of each batch.
    """

    vectors: np.ndarray
    groups: np.ndarray
    of_clips: np.ndarray
    dropout: float = 0.0

    def kept(self, random: np.random.Generator) -> np.ndarray:
        """Draw which names count in a batch, `(names,)` bool."""
        return (random.random(int(self.groups.max(initial=0)) + 1) >= self.dropout)[self.groups]


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
    names, name_weights
        `(rows, spans, names)` numbers of the nearest names, and how much each counts; 0 for padding.
    seed
        What is random in the objective of this batch is drawn from it.
    """

    inputs: Inputs
    answers: Tensor
    opposites: Tensor
    clips: Tensor
    scores: Tensor
    names: Tensor
    name_weights: Tensor
    seed: int = 0

    def to(self, device: torch.device | str) -> Batch:
        """Move what the model computes with; the clips' numbers stay where the clips are."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("inputs", "answers", "opposites", "scores", "names", "name_weights")
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class BatchMaker:
    """Maker of batches of examples.

    Parameters
    ----------
    names : TrainingNames, optional
        The names that `SpanClips.names` numbers.
    causal : bool
        Answers stand behind the texts, not at masks in them.
    injection : InjectionSettings
        Says where in a span the knowledge goes.
    """

    tokenizer: PreTrainedTokenizerBase
    clips_per_span: int
    names: TrainingNames | None = None
    causal: bool = False
    injection: InjectionSettings = _AT_FIRST_TOKEN

    def __call__(self, examples: Sequence[Example], seed: int = 0) -> Batch:
        """Return the batch of examples; `seed` is kept with it."""
        texts = [one.text for one in examples]
        places = [self.injection.places(one.text, one.spans) for one in examples]
        if self.causal:
            inputs = encode_prompts(self.tokenizer, texts, places, [one.answer for one in examples])
        else:
            inputs = encode_texts(self.tokenizer, texts, places)
        spans = inputs.starts.shape[1]
        clips = np.zeros((len(examples), spans, self.clips_per_span), dtype=np.int64)
        scores = np.full(clips.shape, NO_CLIP, dtype=np.float32)
        for row, example in enumerate(examples):
            for column, known in enumerate(example.clips):
                count = min(len(known.rows), self.clips_per_span)
                clips[row, column, :count] = known.rows[:count]
                scores[row, column, :count] = known.scores[:count]
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
            *self._names(examples, spans, seed),
            seed,
        )

    def _names(self, examples: Sequence[Example], spans: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return the nearest names of each span and their weights, after some kinds have been left out."""
        width = 0 if self.names is None else max((len(k.names) for one in examples for k in one.clips), default=0)
        names = np.zeros((len(examples), spans, width), dtype=np.int64)
        cosines = np.zeros(names.shape, dtype=np.float32)
        for row, example in enumerate(examples):
            for column, known in enumerate(example.clips):
                names[row, column, : len(known.names)] = known.names
                cosines[row, column, : len(known.names)] = known.cosines
        if not width or self.names is None:
            return torch.from_numpy(names), torch.from_numpy(cosines)
        cosines = np.where(self.names.kept(np.random.default_rng((seed, 3)))[names], cosines, 0.0)
        vectors = self.names.vectors[names]
        there = (cosines > 0).astype(np.float32)
        among = vectors @ vectors.swapaxes(-1, -2) * there[..., None] * there[..., None, :]
        return torch.from_numpy(names), torch.from_numpy(name_weights(cosines, among).astype(np.float32))
