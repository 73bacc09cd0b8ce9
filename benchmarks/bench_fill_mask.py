"""`fill_mask` against transformers' fill-mask pipeline, to which the folded language model is given as a folder.

The pipeline predicts once. AudioBERT finds spans, looks them up, and predicts with and without sound. Both have one
thread.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

from audiobert import AudioBert
from audiobert.web.page import Answers
from audiobert.web.shelf import OWN_BANK, Shelf
from benchmarks.measure import in_turn, row, run_process

SOUND = "The sound of a small bell has a [MASK] pitch than the sound of a large drum."
SILENT = "The meeting about the new budget was [MASK] until the end of next week again."
PIPELINE = "transformers' fill-mask pipeline, LoRA folded"
ROUNDS, BATCH_ROUNDS, COLD_ROUNDS = 40, 5, 3
BATCH = 64
FEW_LINES, MANY_LINES = 64, 1_280
KINDS = ("bell", "drum", "flute", "engine", "kettle", "clock", "saw", "river", "door", "whistle", "siren", "truck")
WAYS = ("small", "large", "old", "rusty", "distant", "broken", "wooden", "glass", "hollow", "heavy", "tiny", "cracked")
PLACES = ("budget", "harbour", "school", "museum", "garden", "library", "bridge", "market", "hospital", "station")


def sounding() -> Iterator[str]:
    """Yield sentences of two spans each, no two of them equal."""
    spans = [f"{way} {kind} in the {place}" for way in WAYS for kind in KINDS for place in PLACES]
    random.Random(0).shuffle(spans)
    for first, second in zip(spans[::2], spans[1::2], strict=True):
        yield f"The sound of a {first} has a [MASK] pitch than the sound of a {second}."


def silent() -> Iterator[str]:
    """Yield sentences without sound, no two of them equal."""
    for number in itertools.count():
        yield f"The meeting about the {PLACES[number % len(PLACES)]} was [MASK] until {1900 + number} again."


def run() -> Iterator[dict[str, Any]]:
    """Measure."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from _measure(Path(folder))
    finally:
        torch.set_num_threads(threads)


def _measure(folder: Path) -> Iterator[dict[str, Any]]:
    model = AudioBert.from_pretrained("mini", device="cpu")
    language_model = folder / "folded"
    model.parts.language_model.save_pretrained(language_model)
    model.tokenizer.save_pretrained(language_model)
    plain = pipeline("fill-mask", model=str(language_model), device="cpu")
    for name, text in (("with spans", SOUND), ("without a span", SILENT)):
        times = in_turn(lambda text=text: model.fill_mask(text), lambda text=text: plain(text), ROUNDS)  # type: ignore[misc]
        yield _ms(f"one sentence {name}", *times, PIPELINE)
    times = in_turn(lambda: model.fill_mask(SOUND, base=False), lambda: plain(SOUND), ROUNDS)
    yield _ms("one sentence with spans, base=False", *times, PIPELINE)
    for name, texts in (("with spans", sounding()), ("without a span", silent())):
        yield _ms(f"{BATCH} different sentences {name}", *_batches(model, plain, texts), f"{PIPELINE}, batches of 64")
    answers = Answers(Shelf(loader=lambda _: model))
    form = (SOUND, True, model.settings.retrieval.clips, "", None, "mini", OWN_BANK)
    times = in_turn(lambda: answers.fill_mask(*form), lambda: plain(SOUND), ROUNDS)
    yield _ms("the page's answer, two spans", *times, PIPELINE)
    yield _cold_start(folder, language_model)
    yield _memory(folder)


def _batches(model: AudioBert, plain: Any, texts: Iterator[str]) -> tuple[float, float]:
    """Time both on the same sentences, new ones in each round: no span was looked up before."""
    rounds = [list(itertools.islice(texts, BATCH)) for _ in range(BATCH_ROUNDS + 1)]
    ours, theirs = iter(rounds), iter(rounds)
    return in_turn(lambda: model.fill_mask(next(ours)), lambda: plain(next(theirs), batch_size=BATCH), BATCH_ROUNDS)


def _cold_start(folder: Path, language_model: Path) -> dict[str, Any]:
    script = folder / "pipeline.py"
    script.write_text(f"from transformers import pipeline\npipeline('fill-mask', {str(language_model)!r})({SOUND!r})\n")
    ways: list[Callable[[], float]] = [
        lambda: run_process(["-m", "audiobert", "fill-mask", SOUND]).cpu_s,
        lambda: run_process([script]).cpu_s,
    ]
    ours, theirs = (min(times) for times in zip(*([way() for way in ways] for _ in range(COLD_ROUNDS)), strict=True))
    return row("audiobert fill-mask, cold", ours, theirs, "CPU s", f"a cold {PIPELINE}", more_is_better=False)


def _memory(folder: Path) -> dict[str, Any]:
    lines = list(itertools.islice(itertools.cycle(sounding()), MANY_LINES))
    peaks = []
    for count in (MANY_LINES, FEW_LINES):
        file = folder / f"{count}.txt"
        file.write_text("".join(f"{line} {number}\n" for number, line in enumerate(lines[:count])))
        peaks.append(run_process(["-m", "audiobert", "fill-mask", "--no-base", "--json"], file).peak_mib)
    name = f"peak memory of fill-mask over {MANY_LINES:,} lines of stdin"
    return row(name, *peaks, "MiB", f"{FEW_LINES} lines", more_is_better=False)


def _ms(name: str, ours: float, plain: float, note: str) -> dict[str, Any]:
    return row(name, 1000 * ours, 1000 * plain, "CPU ms", note, more_is_better=False)
