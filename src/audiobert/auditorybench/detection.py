"""How well a span detector finds the spans of AuditoryBench: the F1 of the paper's Table II.

The published code labels the tokens of a sentence, padded to 128, and takes scikit-learn's `f1_score(..., "weighted")`
of the two label matrices: an F1 for each of the 128 positions, averaged by how often a gold token stands there. That is
`f1` here. The F1 over all tokens together (`f1_micro`) and the share of spans found to the letter are given as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from audiobert.artefacts import provenance
from audiobert.auditorybench.data import Row, load_split
from audiobert.auditorybench.evaluate import write_results
from audiobert.auditorybench.models import ModelOptions
from audiobert.errors import InputError

PUBLISHED_LENGTH = 128


class Span(Protocol):
    """A found span: character offsets [start, end)."""

    start: int
    end: int


class Detector(Protocol):
    """What finds spans; an AudioBERT does."""

    tokenizer: Any

    def detect(self, texts: list[str]) -> Sequence[Sequence[Span]]:
        """The spans of each text."""


def token_labels(offsets: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]) -> list[bool]:
    """Which tokens, given by their character offsets, touch a span; special tokens (of no length) never do."""
    wanted = list(spans)
    return [end > start and any(start < stop and begin < end for begin, stop in wanted) for start, end in offsets]


def weighted_f1(gold: np.ndarray, found: np.ndarray) -> float:
    """The published figure: F1 a position, averaged by the number of gold tokens there; arrays (rows, positions)."""
    true = (gold & found).sum(axis=0)
    both = gold.sum(axis=0) + found.sum(axis=0)
    f1 = np.divide(2 * true, both, out=np.zeros(len(both)), where=both > 0)
    support = gold.sum(axis=0)
    return float((f1 * support).sum() / support.sum()) if support.sum() else 0.0


def detector_scores(detector: Detector, rows: Sequence[Row]) -> dict[str, Any]:
    """Score a detector on rows, over those whose spans all stand in the sentence.

    Returns
    -------
    dict
        `n` rows scored, `skipped` rows without aligned spans, `f1` (published definition), `f1_micro`, `precision`,
        `recall` over tokens, and `exact`, the share of gold spans found with the very same offsets.
    """
    usable = [row for row in rows if row.span_offsets and all(row.span_offsets)]
    texts = [row.text for row in usable]
    encoding = detector.tokenizer(texts, return_offsets_mapping=True, truncation=True, max_length=PUBLISHED_LENGTH)[
        "offset_mapping"
    ]
    gold = np.zeros((len(usable), PUBLISHED_LENGTH), dtype=bool)
    found = np.zeros_like(gold)
    exact = total = 0
    for index, (row, spans) in enumerate(zip(usable, detector.detect(texts) if texts else [], strict=True)):
        places = [place for place in row.span_offsets if place is not None]
        said = [(span.start, span.end) for span in spans]
        labels = token_labels(encoding[index], places)
        gold[index, : len(labels)] = labels
        found[index, : len(labels)] = token_labels(encoding[index], said)
        exact += len(set(places) & set(said))
        total += len(places)
    true = int((gold & found).sum())
    precision = true / int(found.sum()) if found.any() else 0.0
    recall = true / int(gold.sum()) if gold.any() else 0.0
    return {
        "n": len(usable),
        "skipped": len(rows) - len(usable),
        "f1": round(weighted_f1(gold, found), 4),
        "f1_micro": round(2 * true / (int(gold.sum()) + int(found.sum())), 4) if true else 0.0,
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "exact": round(exact / total, 4) if total else 0.0,
    }


def load_detector(name: str, options: ModelOptions) -> tuple[Detector, dict[str, Any]]:
    """The span detector of an AudioBERT, and what it is."""
    from audiobert.auditorybench.models import kind_of_model
    from audiobert.pipeline import AudioBert

    if name.startswith("control:") or (options.kind or kind_of_model(name)) != "audiobert":
        raise InputError(f"'{name}' has no span detector: give an AudioBERT, 'mini' or a folder")
    model = AudioBert.from_pretrained(name, bank=options.bank, device=options.device)
    return model, model.describe()


def evaluate_detectors(
    models: Sequence[str],
    data: str | Path,
    *,
    tasks: Sequence[str] = ("animal", "pitch"),
    splits: Sequence[str] = ("dev", "wiki"),
    options: ModelOptions | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    loader: Callable[[str, ModelOptions], tuple[Detector, dict[str, Any]]] = load_detector,
) -> list[dict[str, Any]]:
    """Score the span detectors of models, each task apart and both together.

    Returns
    -------
    list of dict
        For each model `model`, provenance, and `detection`: entries of `detector_scores` with `task` and `split`.
    """
    loaded = {(task, split): load_split(data, task, split)[:limit] for task in tasks for split in splits}
    reports = []
    for name in dict.fromkeys(models):
        detector, made_of = loader(name, options or ModelOptions())
        entries = [
            {"task": task, "split": split, **detector_scores(detector, rows)} for (task, split), rows in loaded.items()
        ]
        if len(tasks) > 1:
            for split in splits:
                rows = [row for task in tasks for row in loaded[task, split]]
                entries.append({"task": "combined", "split": split, **detector_scores(detector, rows)})
        reports.append({"model": name, **provenance(artefacts={"model": made_of}), "results": [], "detection": entries})
        if out is not None:
            write_results(out, reports)
    return reports
