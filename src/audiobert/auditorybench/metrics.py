"""Compute figures of predictions: accuracy with its interval, seen and unseen apart, ranks, both ways round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiobert.auditorybench.data import Row
from audiobert.auditorybench.interfaces import TOP_K, Prediction
from audiobert.auditorybench.questions import Question
from audiobert.auditorybench.stats import wilson_interval

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """Hold a question with its prediction, and the prediction with spans exchanged where there is one."""

    question: Question
    prediction: Prediction
    flipped: Prediction | None = None


@dataclass(frozen=True)
class Seen:
    """Hold the sentences and answers of a train split, case folded: what a model may have seen."""

    sentences: frozenset[str]
    answers: frozenset[str]

    @classmethod
    def of(cls, train: Iterable[Row]) -> Seen:
        """Collect the sentences and answers of train rows."""
        rows = list(train)
        return cls(frozenset(row.text.casefold() for row in rows), frozenset(row.answer.casefold() for row in rows))


def share(correct: float, n: int) -> dict[str, Any] | None:
    """Return n, correct, accuracy and its Wilson interval; None without rows."""
    if n == 0:
        return None
    interval = [round(bound, _DIGITS) for bound in wilson_interval(correct, n)]
    return {"n": n, "correct": correct, "accuracy": round(correct / n, _DIGITS), "ci95": interval}


def _accuracy(answered: Iterable[Answered]) -> dict[str, Any] | None:
    rows = list(answered)
    return share(sum(a.prediction.correct for a in rows), len(rows))


def macro_accuracy(answered: Sequence[Answered]) -> float:
    """Return the mean over answers of the accuracy on the rows with that answer, so that rare answers count equally."""
    by_answer: dict[str, list[bool]] = defaultdict(list)
    for a in answered:
        by_answer[a.question.answer.casefold()].append(a.prediction.correct)
    return sum(sum(values) / len(values) for values in by_answer.values()) / len(by_answer)


def rank_metrics(answered: Sequence[Answered]) -> dict[str, float]:
    """Return top-5 accuracy and mean reciprocal rank, where the protocol ranks; rank 0 (no candidate) counts as 0."""
    ranks = [a.prediction.rank for a in answered]
    if None in ranks:
        return {}
    known = [rank for rank in ranks if rank]
    return {
        "top5": round(sum(rank <= TOP_K for rank in known) / len(ranks), _DIGITS),
        "mrr": round(sum(1 / rank for rank in known) / len(ranks), _DIGITS),
        "answerable": len(known),
    }


def both_ways(answered: Sequence[Answered]) -> dict[str, Any] | None:
    """Return the share of comparisons that are right both as published and with their spans exchanged (`flip`).

    A model that always answers the more frequent word has an accuracy of 0 here. `consistency` is the share of
    comparisons with opposite answers.
    """
    pairs = [(a.prediction, a.flipped) for a in answered if a.flipped is not None]
    figures = share(sum(one.correct and other.correct for one, other in pairs), len(pairs))
    if figures is None:
        return None
    # Consistent: right both ways or wrong both ways, as the two right answers are opposites.
    consistent = sum(one.correct == other.correct for one, other in pairs)
    return {**figures, "consistency": round(consistent / len(pairs), _DIGITS)}


def summarise(answered: Sequence[Answered], seen: Seen | None) -> dict[str, Any]:
    """Return all figures of one model on one split.

    `seen` and `unseen` are there where there is a train split, `both_ways` for comparisons. `rows_correct` has a 0 or 1
    per row, from which two models on the same rows are compared.
    """
    figures = _accuracy(answered) or {}
    figures["macro_accuracy"] = round(macro_accuracy(answered), _DIGITS)
    figures |= rank_metrics(answered)
    if seen is not None:
        for what, is_known in (
            ("sentence", [a.question.text.casefold() in seen.sentences for a in answered]),
            ("answer", [a.question.answer.casefold() in seen.answers for a in answered]),
        ):
            figures[f"by_{what}"] = {
                "seen": _accuracy(a for a, known in zip(answered, is_known, strict=True) if known),
                "unseen": _accuracy(a for a, known in zip(answered, is_known, strict=True) if not known),
            }
    if (both := both_ways(answered)) is not None:
        figures["both_ways"] = both
    figures["rows_correct"] = "".join("1" if a.prediction.correct else "0" for a in answered)
    return figures


def rows_by_seed(entry: Mapping[str, Any]) -> list[list[int]] | None:
    """Return 0 or 1 per seed and row from an entry of `results`; None where it has no rows."""
    runs = entry.get("per_seed", [entry])
    if any("rows_correct" not in run for run in runs):
        return None
    return [[int(letter) for letter in run["rows_correct"]] for run in runs]
