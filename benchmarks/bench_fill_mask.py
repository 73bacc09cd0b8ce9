"""`AudioBert.fill_mask` against transformers' own fill-mask pipeline on the same backbone, head and texts.

The pipeline predicts once; AudioBert finds spans, looks them up, and predicts with and without sound.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from transformers import pipeline

from audiobert import AudioBert

SOUND = "The sound of a small bell has a [MASK] pitch than the sound of a large drum."
SILENT = "The meeting about the new budget was [MASK] until the end of next week again."
REPEATS = 15


def median_seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median wall time of a call, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def run() -> list[dict[str, Any]]:
    """Measure one text and 64 at once, with a span and without."""
    model = AudioBert.from_pretrained("mini", device="cpu")
    plain = pipeline("fill-mask", model=model.parts.language_model, tokenizer=model.tokenizer, device="cpu")
    rows = []
    for count in (1, 64):
        for name, text in (("with a span", SOUND), ("without a span", SILENT)):
            texts = [text] * count
            ours = median_seconds(lambda texts=texts: model.fill_mask(texts), REPEATS if count == 1 else 5)
            theirs = median_seconds(lambda texts=texts: plain(texts, batch_size=64), REPEATS if count == 1 else 5)
            rows.append(
                {
                    "name": f"fill_mask, {count} {'sentence' if count == 1 else 'sentences'} {name}",
                    "ours": 1000 * ours,
                    "plain": 1000 * theirs,
                    "ratio": theirs / ours,
                    "unit": "ms",
                    "note": "transformers' fill-mask pipeline, same backbone; above 1 is faster than it",
                }
            )
    return rows
