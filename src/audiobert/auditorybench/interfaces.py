"""Define the interfaces between protocols and models: what a model offers, and what a protocol returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from audiobert.auditorybench.questions import Question

if TYPE_CHECKING:
    import torch

ProtocolName = Literal["paper", "candidates", "multiple-choice"]
TOP_K = 5


@dataclass(frozen=True, slots=True)
class Prediction:
    """Hold the prediction of a model for one question: the word with the highest score.

    `rank` is that of the answer, from 1, among all words or the candidates. It is None where the protocol gives no
    rank, and 0 where the answer is not among the candidates. The last three fields are those of `Evidence`.
    """

    text: str
    correct: bool
    rank: int | None = None
    scores: dict[str, float] = field(default_factory=dict)  # log-probabilities of the best candidates, at most five
    auditory: bool | None = None
    spans: list[dict[str, Any]] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Hold whether AudioBERT found a span, the spans, and the ids of the clips; empty for other models."""

    auditory: bool | None = None
    spans: list[dict[str, Any]] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MaskQuery:
    """Ask for scores of a question's sentence, with `known` wordpieces and then `masks` masks in place of its mask.

    `read` is the number of masks, from the left, whose scores are wanted.
    """

    question: Question
    masks: int
    known: tuple[int, ...] = ()
    read: int = 1


@dataclass(frozen=True, slots=True)
class MaskBatch:
    """Hold logits at the masks of some queries."""

    indices: list[int]  # positions of the queries in the list that was given
    logits: torch.Tensor  # (sum of the queries' `read`, vocabulary), float32, in the order of `indices`
    evidence: list[Evidence]  # one per query


class MaskedScorer(Protocol):
    """Interface of a masked language model: wordpieces of a word, and logits at masks."""

    def pieces(self, question: Question, word: str) -> tuple[int, ...]:
        """Return the wordpieces of `word` in place of the mask; InputError if the tokenizer cannot spell it."""

    def variants(self, piece: int) -> tuple[int, ...]:
        """Return the piece and those that differ from it only in case."""

    def decode(self, pieces: Sequence[int]) -> str:
        """Return the text of wordpieces, without surrounding space."""

    def mask_logits(self, queries: Sequence[MaskQuery]) -> Iterator[MaskBatch]:
        """Yield logits for all queries, in any order."""


class ContinuationScorer(Protocol):
    """Interface of a causal language model, which gets the prompts of questions."""

    def log_likelihoods(self, questions: Sequence[Question], words: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return, per question, the log-likelihood of each word behind its prompt (in nats, summed over tokens)."""

    def complete(self, questions: Sequence[Question]) -> list[str]:
        """Return a short greedy completion per question, up to the end of the line."""


class ReplyScorer(Protocol):
    """Interface of a chat server: a reply per question."""

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Yield (position, reply) for all questions, in any order."""


def ranked_prediction(question: Question, scores: Sequence[float], evidence: Evidence | None = None) -> Prediction:
    """Return the prediction from one score per candidate; of equal scores, the first candidate ranks first."""
    candidates = question.candidates or ()
    order = sorted(range(len(candidates)), key=lambda i: (-scores[i], i))
    answer = question.answer.casefold()
    folded = [candidates[i].casefold() for i in order]
    rank = folded.index(answer) + 1 if answer in folded else 0
    evidence = evidence or Evidence()
    best = {candidates[i]: round(float(scores[i]), 5) for i in order[:TOP_K]}
    return Prediction(candidates[order[0]], rank == 1, rank, best, evidence.auditory, evidence.spans, evidence.clips)
