"""Decide what counts as right: the protocols, on small interfaces that every kind of model can offer.

`paper`
    A missing word: the mask is replaced by one mask per wordpiece of the answer, and every piece must be the model's
    first choice. A comparison: the larger of the two logits at the mask. A causal model completes the prompt greedily,
    or chooses by log-likelihood where there are two words.
`candidates`
    The label set is ranked by pseudo-log-likelihood, so that the number of masks does not reveal the answer's length.
`multiple-choice`
    The row's own options are ranked in the same way; a chat server is asked for a letter.

docs/benchmark.md describes them in full.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import get_args

from audiobert.auditorybench.interfaces import (
    ContinuationScorer,
    Evidence,
    MaskBatch,
    MaskedScorer,
    MaskQuery,
    Prediction,
    ProtocolName,
    ReplyScorer,
    ranked_prediction,
)
from audiobert.auditorybench.pseudo_likelihood import QUESTIONS_AT_ONCE, score_chains
from audiobert.auditorybench.questions import LETTERS, Question, normalise_reply
from audiobert.errors import InputError

PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)

__all__ = [
    "PROTOCOLS",
    "Evidence",
    "MaskBatch",
    "MaskQuery",
    "Prediction",
    "ProtocolName",
    "choose",
    "protocol_of",
    "ranked_prediction",
    "score_continuations",
    "score_masked",
    "score_replies",
]


def protocol_of(kind: str, wanted: ProtocolName) -> ProtocolName:
    """Return the protocol that a task is scored with: multiple-choice tasks have one only."""
    return "multiple-choice" if kind == "multiple-choice" else wanted


# --- masked language models ------------------------------------------------------------------------------------------


def score_masked(
    model: MaskedScorer, questions: Sequence[Question], protocol: ProtocolName
) -> Iterator[tuple[int, Prediction]]:
    """Answer questions with a masked language model; yield (position, prediction) in any order."""
    del protocol  # decided by whether the question has candidates
    cloze = [index for index, question in enumerate(questions) if question.candidates is None]
    yield from _score_cloze(model, questions, cloze)
    yield from score_chains(
        model, questions, [index for index, question in enumerate(questions) if question.candidates is not None]
    )


def _score_cloze(
    model: MaskedScorer, questions: Sequence[Question], chosen: Sequence[int]
) -> Iterator[tuple[int, Prediction]]:
    """Score one mask per wordpiece of the (lower-cased) answer; every piece must be the first choice at its mask."""
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
        above = batch.logits > values[:, None]
        # Of equal logits (usual in bfloat16), the smaller id ranks first, as in argmax.
        ids = torch.arange(batch.logits.shape[1], device=batch.logits.device)
        tied = (batch.logits == values[:, None]) & (ids < best_ids)
        ranks = (1 + (above | tied).sum(dim=1)).tolist()
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


# --- causal language models ------------------------------------------------------------------------------------------


def score_continuations(
    model: ContinuationScorer, questions: Sequence[Question], protocol: ProtocolName
) -> Iterator[tuple[int, Prediction]]:
    """Answer with a causal model: candidates by log-likelihood behind the prompt, a missing word by completion."""
    del protocol  # decided by whether the question has candidates
    most = max((len(question.candidates or ()) for question in questions), default=0)
    at_once = QUESTIONS_AT_ONCE if most <= QUESTIONS_AT_ONCE else 1  # so many candidates take seconds: show progress
    for start in range(0, len(questions), at_once):
        some = range(start, min(start + at_once, len(questions)))
        ranked = [i for i in some if questions[i].candidates is not None]
        free = [i for i in some if questions[i].candidates is None]
        words = [[f" {word}" for word in questions[i].candidates or ()] for i in ranked]
        scores = model.log_likelihoods([questions[i] for i in ranked], words) if ranked else []
        for index, row in zip(ranked, scores, strict=True):
            yield index, ranked_prediction(questions[index], row)
        texts = model.complete([questions[i] for i in free]) if free else []
        for index, text in zip(free, texts, strict=True):
            yield index, free_prediction(questions[index], text)


def free_prediction(question: Question, reply: str) -> Prediction:
    """Return the prediction of a reply in free text: right if the normalised reply is the answer."""
    said = normalise_reply(reply)
    return Prediction(said, said == normalise_reply(question.answer))


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
            chosen = choose(reply, question.candidates, lettered=protocol == "multiple-choice")
            correct = chosen is not None and chosen.casefold() == question.answer.casefold()
            yield index, Prediction(chosen if chosen is not None else normalise_reply(reply), correct)


def choose(reply: str, candidates: Sequence[str], *, lettered: bool) -> str | None:
    """Return the candidate that a reply names; None if it names none, or several.

    >>> choose("Louder, I think.", ["louder", "quieter"], lettered=False)
    'louder'
    >>> choose("(B)", ["owl", "magpie"], lettered=True)
    'magpie'
    """
    said = normalise_reply(reply)
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
