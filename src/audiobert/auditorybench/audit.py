"""Find what is wrong with a benchmark folder: leaks, ambiguity, missing spans, priors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from audiobert.auditorybench.align import MASK, align_spans
from audiobert.auditorybench.data import Row, available_splits, load_split, sizes
from audiobert.auditorybench.tasks import SPLITS, Task, auditorybench_tasks
from audiobert.errors import InputError, needs

# Two sentences are near-duplicates when their normalised edit similarity (rapidfuzz ratio) is at least this.
NEAR_DUPLICATE = 95.0
EXAMPLES = 3
_DIGITS = 6
# Sentences compared with all others at once; bounds the memory.
_CHUNK = 512
Splits = Mapping[str, Sequence[Row]]


def audit(
    folder: str | Path,
    *,
    tasks: Sequence[Task] | None = None,
    splits: Sequence[str] = SPLITS,
    tokenizer: Any = None,
    near_duplicates: bool = True,
) -> dict[str, Any]:
    """Audit every split of a folder.

    With a `tokenizer` of transformers, the wordpieces of the answers are counted. Near-duplicates are sentences that
    differ by a few letters (needs rapidfuzz; some seconds).
    """
    report: dict[str, Any] = {"folder": str(folder), "near_duplicate_ratio": NEAR_DUPLICATE, "tasks": {}}
    for task in tasks if tasks is not None else auditorybench_tasks():
        present = [split for split in available_splits(folder, task) if split in splits]
        loaded = {split: load_split(folder, task, split) for split in present}
        if not loaded:
            continue
        report["tasks"][task.name] = audit_task(task, loaded, tokenizer=tokenizer, near_duplicates=near_duplicates)
    if not report["tasks"]:
        raise InputError(
            f"{folder} holds no file of AuditoryBench: 'audiobert data download' fetches the published files"
        )
    return report


def audit_task(task: Task, splits: Splits, *, tokenizer: Any = None, near_duplicates: bool = True) -> dict[str, Any]:
    """Audit one task."""
    found: dict[str, Any] = {
        "kind": task.kind,
        "splits": {split: _size(rows) for split, rows in splits.items()},
        "priors": {split: _priors(rows) for split, rows in splits.items()},
        "ambiguity": {split: ambiguity(rows) for split, rows in splits.items()},
        "spans": {split: span_faults(rows) for split, rows in splits.items()},
        "leaks": [leak(splits, a, b, near_duplicates=near_duplicates) for a, b in combinations(splits, 2)],
    }
    if train := splits.get("train"):
        others = {split: rows for split, rows in splits.items() if split != "train"}
        found["unseen_answers"] = {split: unseen_answers(train, rows) for split, rows in others.items()}
        found["train_answer_where_seen"] = {
            split: train_answers_where_seen(train, rows) for split, rows in others.items()
        }
    if tokenizer is not None:
        found["wordpieces"] = {split: wordpieces(rows, tokenizer) for split, rows in splits.items()}
    return found


def _share(part: int, whole: int) -> float:
    return round(part / whole, _DIGITS) if whole else 0.0


def _size(rows: Sequence[Row]) -> dict[str, Any]:
    several = [row.row for row in rows if row.text.count(MASK) != 1]
    return {
        **sizes(rows),
        "answers": len({row.answer.casefold() for row in rows}),
        "duplicate_rows": len(rows) - len({(row.text, row.answer) for row in rows}),
        "rows_without_exactly_one_mask": several,
    }


def _priors(rows: Sequence[Row], most: int = 5) -> dict[str, float]:
    """Return the shares of the most frequent answers, which are the accuracies of constant answers."""
    counts = Counter(row.answer.casefold() for row in rows)
    return {answer: _share(count, len(rows)) for answer, count in counts.most_common(most)}


def _answers_of(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """Count the answers of each sentence, case folded."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        answers[row.text.casefold()][row.answer.casefold()] += 1
    return answers


def ambiguity(rows: Sequence[Row]) -> dict[str, Any]:
    """Count the sentences with several answers, and compute the accuracy ceiling that follows from them."""
    answers = _answers_of(rows)
    several = {text: counts for text, counts in answers.items() if len(counts) > 1}
    reachable = sum(max(counts.values()) for counts in answers.values())
    worst = sorted(several, key=lambda text: -len(several[text]))[:EXAMPLES]
    return {
        "sentences": len(answers),
        "sentences_with_several_answers": len(several),
        "rows_with_such_sentences": sum(sum(counts.values()) for counts in several.values()),
        "accuracy_ceiling": _share(reachable, len(rows)),
        "examples": [{"text": text, "answers": sorted(several[text])} for text in worst],
    }


def span_faults(rows: Sequence[Row]) -> dict[str, Any]:
    """Count spans that are empty or not in their sentence, and how they were aligned (see `align_spans`)."""
    spans = [(row, span) for row in rows for span in row.spans]
    as_written = [(row, span) for row, span in spans if span not in row.text]
    missing = [(row, span) for row, span in spans if span.casefold() not in row.text.casefold()]
    missing_rows = {row.row for row, _ in missing}
    methods = Counter(alignment.method for row in rows for alignment in align_spans(row.text, row.spans))
    return {
        "spans": len(spans),
        "empty": sum(not span for _, span in spans),
        "spans_not_as_written": len(as_written),
        "rows_not_as_written": len({row.row for row, _ in as_written}),
        "spans_not_in_sentence": len(missing),
        "rows_not_in_sentence": len(missing_rows),
        "share_of_spans_not_in_sentence": _share(len(missing), len(spans)),
        "share_of_rows_not_in_sentence": _share(len(missing_rows), len(rows)),
        "alignment": {method: methods[method] for method in ("exact", "case", "tolerant", "none")},
        "examples": [{"row": row.row, "span": span, "text": row.text} for row, span in missing[:EXAMPLES]],
    }


def leak(splits: Splits, first: str, second: str, *, near_duplicates: bool) -> dict[str, Any]:
    """Count rows of split `second` whose sentence, or sentence and answer, also occurs in split `first`."""
    known, asked = splits[first], splits[second]
    texts = {row.text for row in known}
    folded = {row.text.casefold() for row in known}
    pairs = {(row.text.casefold(), row.answer.casefold()) for row in known}
    result: dict[str, Any] = {
        "from": first,
        "into": second,
        "rows": len(asked),
        "sentence_exact": sum(row.text in texts for row in asked),
        "sentence_case_folded": sum(row.text.casefold() in folded for row in asked),
        "sentence_and_answer": sum((row.text.casefold(), row.answer.casefold()) in pairs for row in asked),
    }
    if near_duplicates:
        rest = [row.text for row in asked if row.text.casefold() not in folded]
        near = near_duplicate_pairs(rest, sorted(folded))
        result["sentence_near_duplicate"] = len(near)
        result["examples"] = [{"text": a, "near": b} for a, b in near[:EXAMPLES]]
    return result


def near_duplicate_pairs(asked: Sequence[str], known: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of an asked sentence and a nearly equal one in `known`."""
    with needs("rapidfuzz", "eval"):
        from rapidfuzz import fuzz, process
    pairs = []
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        folded = [text.casefold() for text in part]
        ratios = process.cdist(folded, known, scorer=fuzz.ratio, score_cutoff=NEAR_DUPLICATE, dtype=np.float32)
        nearest = ratios.argmax(axis=1)  # (part,); below the cut-off a ratio is 0
        pairs += [(text, known[at]) for text, at, row in zip(part, nearest, ratios, strict=True) if row[at] > 0]
    return pairs


def unseen_answers(train: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
    """Count rows whose answer no train row has."""
    known = {row.answer.casefold() for row in train}
    unseen = Counter(row.answer.casefold() for row in rows if row.answer.casefold() not in known)
    return {
        "rows": unseen.total(),
        "share": _share(unseen.total(), len(rows)),
        "answers": len(unseen),
        "examples": [answer for answer, _ in unseen.most_common(2 * EXAMPLES)],
    }


def train_answers_where_seen(train: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
    """Count, for sentences that train has, if train gives the answer, and if its most frequent one is right."""
    answers = _answers_of(train)
    seen = [row for row in rows if row.text.casefold() in answers]
    given = sum(row.answer.casefold() in answers[row.text.casefold()] for row in seen)
    most = sum(answers[row.text.casefold()].most_common(1)[0][0] == row.answer.casefold() for row in seen)
    return {
        "rows": len(seen),
        "answer_not_given_by_train": len(seen) - given,
        "share_not_given_by_train": _share(len(seen) - given, len(seen)),
        "most_frequent_train_answer_right": most,
        "share_most_frequent_right": _share(most, len(seen)),
    }


def wordpieces(rows: Sequence[Row], tokenizer: Any) -> dict[str, int]:
    """Count rows by the number of wordpieces of their answer."""
    counts: Counter[int] = Counter()
    for answer, count in Counter(row.answer.lower() for row in rows).items():
        counts[len(tokenizer(answer, add_special_tokens=False)["input_ids"])] += count
    return {str(size): count for size, count in sorted(counts.items())}
