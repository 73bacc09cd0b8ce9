"""From predictions to figures: accuracy with its interval, seen and unseen apart, ranks, and both ways round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from audiobert.auditorybench.data import Row
from audiobert.auditorybench.protocol import TOP_K, Prediction
from audiobert.auditorybench.questions import Question
from audiobert.auditorybench.stats import wilson_interval

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """One row with what a model said to it, and to the question the other way round where that can be asked."""

    question: Question
    prediction: Prediction
    flipped: Prediction | None = None


@dataclass(frozen=True)
class Seen:
    """Sentences and answers of a train split, case folded, to tell what a model may have seen."""

    sentences: frozenset[str]
    answers: frozenset[str]

    @classmethod
    def of(cls, train: Iterable[Row]) -> Seen:
        rows = list(train)
        return cls(frozenset(row.text.casefold() for row in rows), frozenset(row.answer.casefold() for row in rows))


def share(correct: float, n: int) -> dict[str, Any] | None:
    """n, correct, accuracy and its Wilson interval; None without rows."""
    if n == 0:
        return None
    low, high = wilson_interval(correct, n)
    return {
        "n": n,
        "correct": correct,
        "accuracy": round(correct / n, _DIGITS),
        "ci95": [round(low, _DIGITS), round(high, _DIGITS)],
    }


def _accuracy(answered: Iterable[Answered]) -> dict[str, Any] | None:
    rows = list(answered)
    return share(sum(a.prediction.correct for a in rows), len(rows))


def macro_accuracy(answered: Sequence[Answered]) -> float:
    """Mean over answers of the accuracy on the rows with that answer, so that rare animals count as much as "bird"."""
    by_answer: dict[str, list[bool]] = defaultdict(list)
    for a in answered:
        by_answer[a.question.answer.casefold()].append(a.prediction.correct)
    return sum(sum(values) / len(values) for values in by_answer.values()) / len(by_answer)


def rank_metrics(answered: Sequence[Answered]) -> dict[str, float]:
    """Top-5 accuracy and mean reciprocal rank, where the protocol ranks; a rank of 0 (not a candidate) counts as 0."""
    ranks = [a.prediction.rank for a in answered]
    if any(rank is None for rank in ranks):
        return {}
    known = [rank for rank in ranks if rank]
    return {
        "top5": round(sum(rank <= TOP_K for rank in known) / len(ranks), _DIGITS),
        "mrr": round(sum(1 / rank for rank in known) / len(ranks), _DIGITS),
        "answerable": len(known),
    }


def both_ways(answered: Sequence[Answered]) -> dict[str, Any] | None:
    """Accuracy when a comparison and the same the other way round must both be right, and how often the two agree.

    A model that lives on the prior of "higher" answers both ways alike: its consistency is low and so is this accuracy.
    """
    pairs = [(a.prediction, a.flipped) for a in answered if a.flipped is not None]
    figures = share(sum(one.correct and other.correct for one, other in pairs), len(pairs))
    if figures is None:
        return None
    # Consistent: right both ways or wrong both ways, as the two right answers are opposites.
    consistent = sum(one.correct == other.correct for one, other in pairs)
    return {**figures, "consistency": round(consistent / len(pairs), _DIGITS)}


def summarise(answered: Sequence[Answered], seen: Seen | None) -> dict[str, Any]:
    """All figures of one model on one split.

    Returns
    -------
    dict
        `n`, `correct`, `accuracy`, `ci95`; `macro_accuracy`; `top5`, `mrr` and `answerable` where ranks are known;
        `seen` and `unseen` sentences and answers where there is a train split; `both_ways` for comparisons; and
        `rows_correct`, a 0 or 1 a row, from which two models on the same rows are compared.
    """
    figures = _accuracy(answered) or {}
    figures["macro_accuracy"] = round(macro_accuracy(answered), _DIGITS)
    figures |= rank_metrics(answered)
    if seen is not None:
        for what, known in (("sentence", seen.sentences), ("answer", seen.answers)):
            texts = [(a.question.text if what == "sentence" else a.question.answer).casefold() for a in answered]
            split = {
                "seen": _accuracy(a for a, text in zip(answered, texts, strict=True) if text in known),
                "unseen": _accuracy(a for a, text in zip(answered, texts, strict=True) if text not in known),
            }
            figures[f"by_{what}"] = split
    if (both := both_ways(answered)) is not None:
        figures["both_ways"] = both
    figures["rows_correct"] = "".join("1" if a.prediction.correct else "0" for a in answered)
    return figures
