"""Scoring a masked language model and an AudioBERT on the benchmark, against bare forward passes of the sentences.

The sentences are a sample of dev and wiki of the folder in AUDITORYBENCH_DIR, or, without one, made up to the same
lengths. The plain language model is the mini preset's backbone; its head is untrained, which changes no timing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from audiobert import AudioBert
from audiobert.auditorybench.data import Row
from audiobert.auditorybench.evaluate import Part, make_plan
from audiobert.auditorybench.models.audiobert import AudioBertModel
from audiobert.auditorybench.models.masked import MaskedLanguageModel
from audiobert.auditorybench.questions import make_question
from audiobert.auditorybench.tasks import find_task
from audiobert.backbone import load_backbone
from audiobert.model_folder import model_folder
from audiobert.parts import load_parts
from benchmarks.measure import row

ROWS_A_SPLIT = 64
ROUNDS = 2


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


def _scored(model: MaskedLanguageModel | AudioBertModel, parts: list[Part]) -> None:
    for part in parts:
        for _ in model.answer(part.questions, part.protocol):
            pass


def _rows(name: str, ours: Callable[[], Any], plain: MaskedLanguageModel, note: str) -> Iterator[dict[str, Any]]:
    parts = _parts()
    count = sum(len(part.questions) for part in parts)
    _bare(plain, parts[:1])  # warms up
    ours_s, plain_s = [], []
    for _ in range(ROUNDS):  # the two take turns
        plain_s.append(_cpu_seconds(lambda: _bare(plain, parts)))
        adapter = ours()  # a new one each time: what it remembers of sentences must not help it
        ours_s.append(_cpu_seconds(lambda adapter=adapter: _scored(adapter, parts)))  # type: ignore[misc]
    rates = (count / min(ours_s), count / min(plain_s))
    yield row(name, *rates, "sentences/CPU s", f"{note}; {count} sentences, batches of {plain.batch_size}")


def _cpu_seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def run() -> Iterator[dict[str, Any]]:
    """Measure both kinds of model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    note = "forward passes of the same sentences, sorted by length"
    backbone = load_backbone("mini")
    bare = MaskedLanguageModel(backbone.model, backbone.tokenizer, "mini's backbone")
    yield from _rows(
        "a masked language model",
        lambda: MaskedLanguageModel(backbone.model, backbone.tokenizer, "mini's backbone"),
        bare,
        note,
    )
    parts = load_parts(model_folder("mini"))
    folded = MaskedLanguageModel(parts.language_model, parts.tokenizer, "mini's language model")
    pipeline = AudioBert.from_pretrained("mini", device="cpu")
    yield from _rows("mini", lambda: AudioBertModel(pipeline.with_bank(), "mini"), folded, f"{note}, LoRA folded")
    torch.set_num_threads(threads)
