"""Rank candidate words at a mask by pseudo-log-likelihood, without computing what cannot change the result.

The score of a candidate with wordpieces w1 ... wk is the sum over i of log p(wi | the sentence with w1 ... w(i-1) known
and k - i + 1 masks behind them): within a word from left to right, so that a word's later pieces do not give away its
earlier ones (Kauf and Ivanova 2023, "A Better Way to Do Masked Language Model Scoring").

All candidates of k pieces share the first forward pass. As each term is at most 0, the sum so far bounds the score from
above; a candidate whose bound is below both the answer's score and the fifth best is not computed to its end. The rank
of the answer and the best five are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from audiobert.auditorybench.interfaces import TOP_K, Evidence, MaskedScorer, MaskQuery, Prediction, ranked_prediction
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError

# Questions at a time: enough to fill batches, few enough to keep the bookkeeping small.
QUESTIONS_AT_ONCE = 128


@dataclass(slots=True)
class _Chain:
    """Hold a candidate of a question: its pieces, how many are scored, and the sum of their log-probabilities."""

    pieces: tuple[int, ...]
    done: int = 0
    score: float = 0.0

    @property
    def complete(self) -> bool:
        return self.done == len(self.pieces)

    @property
    def key(self) -> tuple[tuple[int, ...], int]:
        """Return known pieces and number of masks: chains with the same key share a forward pass."""
        return self.pieces[: self.done], len(self.pieces) - self.done


@dataclass(slots=True)
class _State:
    question: Question
    chains: list[_Chain | None]
    answer: int | None
    evidence: Evidence = field(default_factory=Evidence)

    def threshold(self) -> float:
        """Return the bound below which a chain cannot change the rank of the answer or the best five."""
        complete = sorted((c.score for c in self.chains if c is not None and c.complete), reverse=True)
        fifth = complete[TOP_K - 1] if len(complete) >= TOP_K else -math.inf
        if self.answer is None:
            return fifth
        answer = self.chains[self.answer]
        assert answer is not None
        return min(fifth, answer.score if answer.complete else -math.inf)

    def pending(self, *, answer_only: bool) -> list[_Chain]:
        least = self.threshold()
        pending = [c for c in self.chains if c is not None and not c.complete and c.score >= least]
        if not answer_only:
            return pending
        answer = self.chains[self.answer] if self.answer is not None else None
        # What shares the answer's pass is scored with it: two words of a comparison take one pass.
        return [c for c in pending if answer is not None and not answer.complete and c.key == answer.key]

    def scores(self) -> list[float]:
        """Return complete scores; those of abandoned chains are below everything that matters."""
        return [c.score if c is not None and c.complete else -math.inf for c in self.chains]


def _start(model: MaskedScorer, question: Question) -> _State:
    answer = question.answer.casefold()
    chains: list[_Chain | None] = []
    at = None
    for index, word in enumerate(question.candidates or ()):
        is_answer = word.casefold() == answer
        try:
            chains.append(_Chain(model.pieces(question, word)))
        except InputError:
            if is_answer:
                raise
            chains.append(None)  # a candidate that the tokenizer cannot spell cannot be said
        if is_answer and at is None:
            at = index
    return _State(question, chains, at)


def _advance(model: MaskedScorer, states: Sequence[_State], *, answer_only: bool) -> bool:
    """Score the next piece of every pending chain; False when none is left."""
    groups: dict[tuple[int, tuple[int, ...], int], list[_Chain]] = {}
    for number, state in enumerate(states):
        for chain in state.pending(answer_only=answer_only):
            groups.setdefault((number, *chain.key), []).append(chain)
    if not groups:
        return False
    keys = list(groups)
    queries = [MaskQuery(states[number].question, masks=masks, known=known) for number, known, masks in keys]
    for batch in model.mask_logits(queries):
        log_probs = batch.logits - batch.logits.logsumexp(dim=1, keepdim=True)
        for row, (position, evidence) in enumerate(zip(batch.indices, batch.evidence, strict=True)):
            chains = groups[keys[position]]
            values = log_probs[row, [chain.pieces[chain.done] for chain in chains]].tolist()
            for chain, value in zip(chains, values, strict=True):
                chain.score += value
                chain.done += 1
            states[keys[position][0]].evidence = evidence
    return True


def score_chains(
    model: MaskedScorer, questions: Sequence[Question], chosen: Sequence[int]
) -> Iterator[tuple[int, Prediction]]:
    """Rank the candidates of the chosen questions; yield (position, prediction)."""
    for start in range(0, len(chosen), QUESTIONS_AT_ONCE):
        part = chosen[start : start + QUESTIONS_AT_ONCE]
        states = [_start(model, questions[index]) for index in part]
        while _advance(model, states, answer_only=True):
            pass
        # One step for all: the first piece of every candidate, whatever the bound.
        while _advance(model, states, answer_only=False):
            pass
        for index, state in zip(part, states, strict=True):
            yield index, ranked_prediction(state.question, state.scores(), state.evidence)
