"""Rows of the benchmark with their gold and detected spans, as what an epoch asks and compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiobert.auditorybench.data import Row, load_split
from audiobert.inputs import Offsets
from audiobert.parts import Parts
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.comparisons import Comparison
from audiobert.training.draws import in_passes
from audiobert.training.questions import MASK, OPPOSITE, Question, can_swap, make_question


def read_rows(folder: Path, tasks: Sequence[str], split: str) -> list[Row]:
    """The rows of a split of several tasks; a few published sentences have two masks and are left out."""
    return [row for task in tasks for row in load_split(folder, task, split) if row.text.count(MASK) == 1]


class Material:
    """Rows with gold and detected spans, and the clips that CLAP retrieves for them."""

    def __init__(self, rows: list[Row], parts: Parts, detected: Sequence[Sequence[Offsets]]) -> None:
        self.rows, self.tokenizer = rows, parts.tokenizer
        self.gold = [tuple(o for o in row.span_offsets if o is not None) for row in rows]
        self.detected = [tuple(spans) for spans in detected]

    def questions(self, random: np.random.Generator, config: AudioBertConfig) -> list[Question]:
        """The questions of one epoch: gold or detected spans, comparisons either way round."""
        questions = []
        for index in self._asked(random, config):
            row, gold, detected = self.rows[index], self.gold[index], self.detected[index]
            spans = detected if detected and (not gold or random.random() < config.detected_share) else gold
            swap = random.random() < config.swap_share and can_swap(row, spans)
            if spans:
                questions.append(make_question(self.tokenizer, row, spans, swap=swap))
        return questions

    def _asked(self, random: np.random.Generator, config: AudioBertConfig) -> list[int]:
        """Which rows are asked in an epoch, each as often as its task's passes say."""
        chosen: list[int] = []
        for task in dict.fromkeys(row.task for row in self.rows):
            own = [index for index, row in enumerate(self.rows) if row.task == task]
            whole, part = divmod(config.passes.get(task, 1.0), 1.0)
            chosen += own * int(whole) + sorted(random.choice(own, size=round(part * len(own)), replace=False).tolist())
        return chosen

    def comparisons(self, random: np.random.Generator, config: AudioBertConfig, count: int) -> list[Comparison]:
        """So many comparisons by gold or detected spans, in passes over the rows in random order."""
        can = []
        for row, gold, detected in zip(self.rows, self.gold, self.detected, strict=True):
            either = [spans for spans in (gold, detected) if len(spans) == 2]
            if row.answer.lower() in OPPOSITE and either:
                higher = row.answer.lower() == "higher"
                can.append([Comparison(row.text[a:b], row.text[c:d], higher) for (a, b), (c, d) in either])
        order = in_passes(len(can), count, random)
        by_detected = random.random(len(order)) < config.detected_share
        return [can[i][-1 if chosen else 0] for i, chosen in zip(order, by_detected, strict=True)]

    def asked(self, spans: str = "detected") -> list[Question]:
        """The questions as a user's model is asked them: detected spans, none where none was found; or gold ones."""
        chosen = self.detected if spans == "detected" else self.gold
        return [make_question(self.tokenizer, row, own) for row, own in zip(self.rows, chosen, strict=True)]

    def swapped(self) -> list[Question]:
        """The comparisons among the rows with their gold spans exchanged and the answer turned round."""
        return [
            make_question(self.tokenizer, row, spans, swap=True)
            for row, spans in zip(self.rows, self.gold, strict=True)
            if can_swap(row, spans)
        ]

    def span_texts(self) -> set[str]:
        """Every text that is looked up, in lower case."""
        return {
            row.text[start:end].lower()
            for row, *both in zip(self.rows, self.gold, self.detected, strict=True)
            for spans in both
            for start, end in spans
        }
