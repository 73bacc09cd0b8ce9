"""What counts as right: the protocols, defined once on small interfaces that every kind of model can offer.

`paper`
    A missing word: the mask is replaced by one mask a wordpiece of the answer, and all pieces must be the model's first
    choice. A comparison: the larger of the two logits at the mask. A causal model completes the prompt greedily, or
    chooses by log-likelihood where there are two words.
`candidates`
    The label set is ranked by pseudo-log-likelihood, so that a model is not told how many wordpieces the answer has.
`multiple-choice`
    The row's own options are ranked in the same way; a chat server is asked for a letter.

docs/benchmark.md says the same at length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from audiobert.auditorybench.questions import LETTERS, Question, normalise
from audiobert.errors import InputError

if TYPE_CHECKING:
    import torch

ProtocolName = Literal["paper", "candidates", "multiple-choice"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
TOP_K = 5


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said to one question.

    Attributes
    ----------
    text
        The word that it puts first.
    correct
        Whether that is the answer.
    rank
        Rank of the answer, from 1, among all words or the candidates; None where the protocol cannot tell, 0 where the
        answer is not among the candidates.
    scores
        The best candidates, at most five, with their log-probabilities.
    auditory, spans, clips
        For AudioBERT: whether a span was found, where, and the ids of the clips that were used.
    """

    text: str
    correct: bool
    rank: int | None = None
    scores: dict[str, float] = field(default_factory=dict)
    auditory: bool | None = None
    spans: list[dict[str, Any]] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What AudioBERT used to answer; empty for other models."""

    auditory: bool | None = None
    spans: list[dict[str, Any]] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MaskQuery:
    """A question's sentence with `known` wordpieces followed by `masks` masks in the place of its mask.

    `read` says how many of these masks, from the left, the scores are wanted for.
    """

    question: Question
    masks: int
    known: tuple[int, ...] = ()
    read: int = 1


@dataclass(frozen=True, slots=True)
class MaskBatch:
    """Logits at the masks of some queries.

    Attributes
    ----------
    indices
        Which queries, by their position in the list that was given.
    logits
        Shape (sum of the queries' `read`, vocabulary), float32, in the order of `indices`.
    evidence
        One a query.
    """

    indices: list[int]
    logits: torch.Tensor
    evidence: list[Evidence]


class MaskedScorer(Protocol):
    """What a masked language model offers: its pieces for a word, and logits at masks."""

    def pieces(self, question: Question, word: str) -> tuple[int, ...]:
        """Wordpieces of `word` in the place of the mask; raises InputError when the tokenizer cannot spell it."""

    def variants(self, piece: int) -> tuple[int, ...]:
        """The piece and those that differ from it in case alone."""

    def decode(self, pieces: Sequence[int]) -> str:
        """Text of wordpieces, without surrounding space."""

    def mask_logits(self, queries: Sequence[MaskQuery]) -> Iterator[MaskBatch]:
        """Logits for all queries, in any order."""


class ContinuationScorer(Protocol):
    """What a causal language model offers."""

    def log_likelihoods(self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each prompt, the log-likelihood of each of its continuations (in nats, summed over tokens)."""

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """A short greedy completion of each prompt, up to the line's end."""


class ReplyScorer(Protocol):
    """What a chat server offers: text for text."""

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """The reply to each question, with its position, in any order."""


def protocol_of(kind: str, wanted: ProtocolName) -> ProtocolName:
    """The protocol that a task is scored with: multiple-choice tasks have one only."""
    return "multiple-choice" if kind == "multiple-choice" else wanted


def ranked_prediction(question: Question, scores: Sequence[float], evidence: Evidence | None = None) -> Prediction:
    """The prediction that follows from a score for each candidate; of equal ones the first counts as the higher."""
    candidates = question.candidates or ()
    order = sorted(range(len(candidates)), key=lambda i: (-scores[i], i))
    answer = question.answer.casefold()
    folded = [candidates[i].casefold() for i in order]
    rank = folded.index(answer) + 1 if answer in folded else 0
    evidence = evidence or Evidence()
    best = {candidates[i]: round(float(scores[i]), 5) for i in order[:TOP_K]}
    return Prediction(candidates[order[0]], rank == 1, rank, best, evidence.auditory, evidence.spans, evidence.clips)


# --- masked language models ------------------------------------------------------------------------------------------


def score_masked(
    model: MaskedScorer, questions: Sequence[Question], protocol: ProtocolName
) -> Iterator[tuple[int, Prediction]]:
    """Answer questions with a masked language model; yields (position, prediction) in any order."""
    cloze, choice, chain = [], [], []
    for index, question in enumerate(questions):
        if question.candidates is None:
            cloze.append(index)
        elif protocol == "paper" and all(len(model.pieces(question, word)) == 1 for word in question.candidates):
            choice.append(index)
        else:
            chain.append(index)
    yield from _score_cloze(model, questions, cloze)
    yield from _score_choice(model, questions, choice)
    if chain:
        from audiobert.auditorybench.pseudo_likelihood import score_chains

        yield from score_chains(model, questions, chain)


def _score_cloze(
    model: MaskedScorer, questions: Sequence[Question], chosen: Sequence[int]
) -> Iterator[tuple[int, Prediction]]:
    """One mask a wordpiece of the (lower-cased) answer; right when each piece is the first choice at its mask."""
    import torch

    pieces = [model.pieces(questions[index], questions[index].answer.lower()) for index in chosen]
    queries = [
        MaskQuery(questions[index], masks=len(target), read=len(target))
        for index, target in zip(chosen, pieces, strict=True)
    ]
    for batch in model.mask_logits(queries):
        targets = [model.variants(piece) for position in batch.indices for piece in pieces[position]]
        width = max(map(len, targets))
        padded = torch.tensor([row + row[:1] * (width - len(row)) for row in targets], device=batch.logits.device)
        values, which = batch.logits.gather(1, padded).max(dim=1)  # (masks,)
        best_ids = padded.gather(1, which[:, None])
        higher = batch.logits > values[:, None]
        # Equal logits (usual in bfloat16): the lower id counts as the higher, as in argmax.
        ids = torch.arange(batch.logits.shape[1], device=batch.logits.device)
        tied = (batch.logits == values[:, None]) & (ids < best_ids)
        ranks = (1 + (higher | tied).sum(dim=1)).tolist()
        first = batch.logits.argmax(dim=1).tolist()
        at = 0
        for position, evidence in zip(batch.indices, batch.evidence, strict=True):
            count = len(pieces[position])
            rank = max(ranks[at : at + count])
            question = questions[chosen[position]]
            text = question.answer if rank == 1 else model.decode(first[at : at + count])
            at += count
            yield (
                chosen[position],
                Prediction(
                    text, rank == 1, rank, auditory=evidence.auditory, spans=evidence.spans, clips=evidence.clips
                ),
            )


def _score_choice(
    model: MaskedScorer, questions: Sequence[Question], chosen: Sequence[int]
) -> Iterator[tuple[int, Prediction]]:
    """The candidates' logits at one mask; each candidate is one wordpiece."""
    import torch

    for batch in model.mask_logits([MaskQuery(questions[index], masks=1) for index in chosen]):
        asked = [questions[chosen[position]] for position in batch.indices]
        words = [question.candidates or () for question in asked]
        width = max(map(len, words))
        ids = [[model.pieces(q, word)[0] for word in ws] for q, ws in zip(asked, words, strict=True)]
        padded = torch.tensor([row + row[:1] * (width - len(row)) for row in ids], device=batch.logits.device)
        scores = (batch.logits.gather(1, padded) - batch.logits.logsumexp(dim=1, keepdim=True)).tolist()
        for position, question, row, evidence in zip(batch.indices, asked, scores, batch.evidence, strict=True):
            yield chosen[position], ranked_prediction(question, row[: len(question.candidates or ())], evidence)


# --- causal language models ------------------------------------------------------------------------------------------


def score_continuations(
    model: ContinuationScorer, questions: Sequence[Question], protocol: ProtocolName
) -> Iterator[tuple[int, Prediction]]:
    """Answer with a causal model: candidates by log-likelihood behind the prompt, a missing word by completion."""
    del protocol  # candidates or none says it all
    ranked = [i for i, question in enumerate(questions) if question.candidates is not None]
    free = [i for i, question in enumerate(questions) if question.candidates is None]
    continuations = [[f" {word}" for word in questions[i].candidates or ()] for i in ranked]
    if ranked:
        scores = model.log_likelihoods([questions[i].prompt for i in ranked], continuations)
        for index, row in zip(ranked, scores, strict=True):
            yield index, ranked_prediction(questions[index], row)
    if free:
        for index, text in zip(free, model.complete([questions[i].prompt for i in free]), strict=True):
            yield index, free_prediction(questions[index], text)


def free_prediction(question: Question, reply: str) -> Prediction:
    """A missing word, answered in free text: right when the normalised reply is the answer."""
    said = normalise(reply)
    return Prediction(said, said == normalise(question.answer))


# --- chat servers ----------------------------------------------------------------------------------------------------


def score_replies(
    model: ReplyScorer, questions: Sequence[Question], protocol: ProtocolName
) -> Iterator[tuple[int, Prediction]]:
    """Answer with a chat server, from the text of its replies.

    Raises
    ------
    InputError
        With the protocol `candidates`: a server's reply ranks nothing.
    """
    if protocol == "candidates":
        raise InputError("a server's replies cannot rank candidates: use --protocol paper or multiple-choice")
    for index, reply in model.replies(questions):
        question = questions[index]
        if question.candidates is None:
            yield index, free_prediction(question, reply)
        else:
            chosen = choose(
                reply, question.candidates, lettered=question.kind == "multiple-choice" or protocol != "paper"
            )
            correct = chosen is not None and chosen.casefold() == question.answer.casefold()
            yield index, Prediction(chosen if chosen is not None else normalise(reply), correct)


def choose(reply: str, candidates: Sequence[str], *, lettered: bool) -> str | None:
    """Which candidate a reply names; None when it names none, or several.

    >>> choose("Lower pitch.", ["higher", "lower"], lettered=False)
    'lower'
    >>> choose("(B)", ["owl", "magpie"], lettered=True)
    'magpie'
    """
    import re

    said = normalise(reply)
    if lettered:
        match = re.match(r"\(?([a-j])(?:[).:,\s]|$)", said)
        if match and LETTERS.index(match.group(1).upper()) < len(candidates):
            return candidates[LETTERS.index(match.group(1).upper())]
    exact = [word for word in candidates if word.casefold() == said]
    if exact:
        return exact[0]
    text = " ".join(reply.split()).casefold()
    named = [word for word in candidates if re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text)]
    return named[0] if len(named) == 1 else None
