"""Measure how well a span detector finds the spans of AuditoryBench: the F1 of the paper's Table II.

The published code labels the tokens of a sentence, padded to 128, and takes scikit-learn's `f1_score(..., "weighted")`
of the two label matrices: an F1 for each of the 128 positions, averaged by how often a gold token stands there. That is
`f1` here. The F1 over all tokens together (`f1_micro`) and the share of spans found to the letter are given as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from audiobert.artefacts import provenance
from audiobert.auditorybench.data import Row, aligned_rows, load_split
from audiobert.auditorybench.evaluate import DEFAULT_SPLITS, write_results
from audiobert.auditorybench.models import ModelOptions, kind_of_model
from audiobert.auditorybench.tasks import Task, auditorybench_tasks, find_task
from audiobert.errors import InputError
from audiobert.sentence import Span, token_labels

PUBLISHED_LENGTH = 128


class Detector(Protocol):
    """Interface of a span detector; an AudioBERT is one."""

    tokenizer: Any

    def detect(self, texts: list[str]) -> Sequence[Sequence[Span]]:
        """Return the spans of each text."""


def weighted_f1(gold: np.ndarray, found: np.ndarray) -> float:
    """Compute the published F1: per position, weighted by its gold tokens; arrays of shape (rows, positions)."""
    true = (gold & found).sum(axis=0)
    both = gold.sum(axis=0) + found.sum(axis=0)
    f1 = np.divide(2 * true, both, out=np.zeros(len(both)), where=both > 0)
    support = gold.sum(axis=0)
    return float((f1 * support).sum() / support.sum()) if support.sum() else 0.0


def detector_scores(detector: Detector, rows: Sequence[Row]) -> dict[str, Any]:
    """Score a detector on the rows whose spans are all in the sentence.

    Returns `n` rows scored, `skipped` rows without aligned spans, `f1` (published definition), `f1_micro`,
    `precision`, `recall` over tokens, and `exact`, the share of gold spans found with equal offsets.
    """
    usable = aligned_rows(rows)
    texts = [row.text for row in usable]
    tokens = detector.tokenizer(texts, return_offsets_mapping=True, truncation=True, max_length=PUBLISHED_LENGTH)
    gold = np.zeros((len(usable), PUBLISHED_LENGTH), dtype=bool)
    found = np.zeros_like(gold)
    exact = total = 0
    for index, (row, spans) in enumerate(zip(usable, detector.detect(texts) if texts else [], strict=True)):
        places = [(span.start, span.end) for span in spans]
        for labels, where in ((gold, row.spans), (found, places)):
            one = token_labels(tokens["offset_mapping"][index], where)
            labels[index, : len(one)] = one
        exact += len(set(row.spans) & set(places))
        total += len(row.spans)
    true, golden, said = int((gold & found).sum()), int(gold.sum()), int(found.sum())
    return {
        "n": len(usable),
        "skipped": len(rows) - len(usable),
        "f1": round(weighted_f1(gold, found), 4),
        "f1_micro": round(2 * true / (golden + said), 4) if true else 0.0,
        "precision": round(true / said, 4) if said else 0.0,
        "recall": round(true / golden, 4) if golden else 0.0,
        "exact": round(exact / total, 4) if total else 0.0,
    }


def load_detector(name: str, options: ModelOptions) -> tuple[Detector, dict[str, Any]]:
    """Load the span detector of an AudioBERT, with its description."""
    from audiobert.pipeline import AudioBert

    if name.startswith("control:") or (options.kind or kind_of_model(name)) != "audiobert":
        raise InputError(f"'{name}' has no span detector: give an AudioBERT, 'mini' or a folder")
    model = AudioBert.from_pretrained(name, bank=options.bank, device=options.device)
    return model, model.describe()


def evaluate_detectors(
    models: Sequence[str],
    data: str | Path,
    *,
    tasks: Sequence[str | Task] | None = None,
    splits: Sequence[str] = DEFAULT_SPLITS,
    options: ModelOptions | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    loader: Callable[[str, ModelOptions], tuple[Detector, dict[str, Any]]] = load_detector,
) -> list[dict[str, Any]]:
    """Score the span detectors of models, on each task and on all together.

    Returns for each model `model`, `limit`, provenance, and `detection`: entries of `detector_scores` with `task` and
    `split`.
    """
    chosen = [find_task(task) for task in tasks] if tasks is not None else auditorybench_tasks()
    loaded = {(task.name, split): load_split(data, task, split)[:limit] for task in chosen for split in splits}
    reports = []
    for name in dict.fromkeys(models):
        detector, made_of = loader(name, options or ModelOptions())
        entries = [
            {"task": task, "split": split, **detector_scores(detector, rows)} for (task, split), rows in loaded.items()
        ]
        if len(chosen) > 1:
            for split in splits:
                rows = [row for task in chosen for row in loaded[task.name, split]]
                entries.append({"task": "combined", "split": split, **detector_scores(detector, rows)})
        made = provenance(artefacts={"model": made_of})
        reports.append({"model": name, "limit": limit, **made, "results": [], "detection": entries})
        if out is not None:
            write_results(out, reports)
    return reports
