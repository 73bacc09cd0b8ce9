"""Scoring a masked language model on the benchmark, against the bare forward passes of the same sentences.

The sentences are a sample of dev and wiki of the folder in AUDITORYBENCH_DIR, or, without one, made up to the same
lengths. The model is the mini preset's backbone; its head is untrained, which changes no timing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from audiobert.auditorybench.data import Row
from audiobert.auditorybench.evaluate import Part, make_plan
from audiobert.auditorybench.models.masked import MaskedLanguageModel
from audiobert.auditorybench.questions import make_question
from audiobert.auditorybench.tasks import find_task
from audiobert.backbone import load_backbone

ROWS_A_SPLIT = 128
ROUNDS = 3
LIMIT = 1.3


def _made_up(task: str, count: int) -> Part:
    """Sentences of the benchmark's forms, when its files are not at hand."""
    found = find_task(task)
    labels = tuple(found.label_words or ()) or None
    questions = []
    for index in range(count):
        sound, other = f"sound number {index} of a bell", f"hum of a fridge in room {index % 7}"
        text, answer = f"The {sound} has a [MASK] pitch than the {other}.", "higher"
        if task == "animal":
            text, answer = f"A [MASK] makes a {sound} in the morning.", ("cat", "river otter", "guinea pig")[index % 3]
        questions.append(make_question(Row(task, "dev", index, text, answer), found, Path("made-up"), labels))
    return Part(found, "dev", "paper", Path("made-up"), questions, [None] * count, None)


def _parts() -> list[Part]:
    folder = os.environ.get("AUDITORYBENCH_DIR")
    if folder and Path(folder).is_dir():
        return make_plan(folder, limit=ROWS_A_SPLIT).parts
    return [_made_up(task, 2 * ROWS_A_SPLIT) for task in ("animal", "pitch")]


def _bare(model: MaskedLanguageModel, parts: list[Part]) -> None:
    """Tokenised sentences in length-sorted batches through the model; nothing is read."""
    mask = str(model.tokenizer.mask_token)
    for part in parts:
        encoded = model.tokenizer([question.text.replace("[MASK]", mask) for question in part.questions])["input_ids"]
        encoded.sort(key=len, reverse=True)
        for start in range(0, len(encoded), model.batch_size):
            batch = model.tokenizer.pad({"input_ids": encoded[start : start + model.batch_size]}, return_tensors="pt")
            with torch.inference_mode():
                model.model(**batch.to(model.model.device))


def _scored(model: MaskedLanguageModel, parts: list[Part]) -> None:
    for part in parts:
        for _ in model.answer(part.questions, part.protocol):
            pass


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def run() -> list[dict[str, Any]]:
    """One line: sentences a second of `evaluate`'s scoring and of bare forward passes."""
    backbone = load_backbone("mini")
    parts = _parts()
    count = sum(len(part.questions) for part in parts)
    ours, plain = [], []
    for _ in range(ROUNDS):
        # A fresh adapter a round: what it remembers of sentences must not help it. The two take turns.
        model = MaskedLanguageModel(backbone.model, backbone.tokenizer, "mini's backbone")
        plain.append(_seconds(lambda model=model: _bare(model, parts)))  # type: ignore[misc]
        ours.append(_seconds(lambda model=model: _scored(model, parts)))  # type: ignore[misc]
    best_ours, best_plain = min(ours), min(plain)
    return [
        {
            "name": "evaluate: scoring a masked language model, dev and wiki",
            "ours": round(count / best_ours, 1),
            "plain": round(count / best_plain, 1),
            "ratio": round(best_ours / best_plain, 3),
            "unit": "sentences/s",
            "note": f"{count} sentences, batches of {model.batch_size}; time over bare forward passes, at most {LIMIT}",
        }
    ]
