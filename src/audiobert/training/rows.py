"""Make examples of the benchmark's train rows: gold or detected spans, both orders, retrieved clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audiobert.auditorybench.data import load_split, split_path
from audiobert.auditorybench.questions import Question, flip, make_question
from audiobert.auditorybench.tasks import Task, find_task
from audiobert.detector import SpanDetector
from audiobert.sentence import MASK, Offsets, replace_text
from audiobert.settings import Settings
from audiobert.training.batches import NOTHING, Example, SpanClips
from audiobert.training.config import Fraction
from audiobert.training.lookup import Lookup
from audiobert.training.spelling import Spelling

# From the texts of spans to what is known of them.
Find = Callable[[Sequence[str]], list[SpanClips]]


class RowSettings(Settings):
    """Settings of how the benchmark's rows are used in an epoch.

    Attributes
    ----------
    most
        Number of rows of a task that are read at most, by task, drawn once; all where nothing is said.
    passes
        How often the rows of a task come, by task; 1 where nothing is said, and a fraction draws that share anew.
    detected_share
        Share of the rows that get the detector's spans in place of the published ones.
    swap_share
        Share of the comparisons that are turned round: spans exchanged, answer flipped.
    twins
        Let every comparison come both ways round, side by side.
    unread_share
        Share of the sentences in which spans get a made-up or a hidden name, where their clips fit with at least
        `unread_score`.
    unheard_share
        Share of the sentences without clips, so that words alone count.
    """

    most: dict[str, int] = {}  # noqa: RUF012  pydantic copies it
    passes: dict[str, float] = {}  # noqa: RUF012
    detected_share: Fraction = 0.5
    swap_share: Fraction = 0.5
    twins: bool = False
    unread_share: Fraction = 0.0
    unread_score: Fraction = 0.7
    unheard_share: Fraction = 0.0


@dataclass(frozen=True)
class _Variant:
    """A row with one choice of spans, in the order of the text, and their words."""

    text: str
    answer: str
    spans: tuple[Offsets, ...]
    texts: tuple[str, ...]


def read_questions(data: Path, task: Task) -> list[Question]:
    """Return the train rows as questions, without the few published sentences that have several masks."""
    path = split_path(data, task, "train")
    rows = [row for row in load_split(data, task, "train") if row.text.count(MASK) == 1]
    return [make_question(row, task, path, None) for row in rows]


class TrainRows:
    """The train rows of one task, as far as `keep` lets them be learnt from: those about withheld kinds may not.

    At most `most` of them are read, drawn with the `seed`.
    """

    def __init__(
        self,
        data: Path,
        task: str,
        spelling: Spelling,
        detector: SpanDetector,
        keep: Callable[[Question], bool],
        *,
        most: int | None = None,
        seed: int = 0,
    ) -> None:
        self.task, self.spelling = find_task(task), spelling
        questions = read_questions(data, self.task)
        kept = [question for question in questions if keep(question)]
        self.left_out = len(questions) - len(kept)
        if most is not None:
            kept = [kept[i] for i in sorted(np.random.default_rng((seed, 7)).permutation(len(kept))[:most])]
        found = detector.detect([question.text for question in kept])
        detected = [[(span.start, span.end) for span in spans] for spans in found]
        # Per row: with gold and with detected spans, each as published and turned round.
        self._rows = [
            (self._both_ways(question, question.span_offsets), self._both_ways(question, spans))
            for question, spans in zip(kept, detected, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def _both_ways(self, question: Question, spans: Sequence[Offsets]) -> tuple[_Variant | None, _Variant | None]:
        texts = tuple(question.text[start:end] for start, end in spans)
        turned = flip(replace(question, spans=texts, span_offsets=tuple(spans)), self.task)
        return self._variant(question, spans), self._variant(turned, turned.span_offsets) if turned else None

    def _variant(self, question: Question, spans: Sequence[Offsets]) -> _Variant | None:
        if not spans:
            return None
        ordered = sorted(spans)
        texts = tuple(question.text[start:end] for start, end in ordered)
        return _Variant(question.text, question.answer, tuple(ordered), texts)

    def span_texts(self) -> set[str]:
        """Return every text that is looked up: gold and detected spans, either way round."""
        variants = (variant for row in self._rows for ways in row for variant in ways if variant is not None)
        return {text for variant in variants for text in variant.texts}

    def examples(self, random: np.random.Generator, settings: RowSettings, find: Find, lookup: Lookup) -> list[Example]:
        """Return the rows as the examples of one epoch; rows without any span are left out."""
        whole, part = divmod(settings.passes.get(self.task.name, 1.0), 1.0)
        drawn = random.permutation(len(self._rows))[: round(part * len(self._rows))]
        made: list[Example] = []
        for index in [*list(range(len(self._rows))) * int(whole), *drawn.tolist()]:
            gold, detected = self._rows[index]
            ways = detected if detected[0] and (not gold[0] or random.random() < settings.detected_share) else gold
            if ways[0] is None:
                continue
            if ways[1] is not None and random.random() < settings.swap_share:
                ways = (ways[1], ways[0])
            first = self._example(ways[0], random, settings, find, lookup)
            made.append(first)
            if settings.twins and ways[1] is not None:
                made.append(self._twin(ways[1], first, find))
        return made

    def _twin(self, turned: _Variant, first: Example, find: Find) -> Example:
        """Return the comparison the other way round, with the clips that the first one has, or none as it has none."""
        clips = find(turned.texts)
        if all(not len(known.rows) for known in first.clips):
            clips = [NOTHING] * len(clips)
        return self._spelled(turned.text, turned.answer, turned.spans, clips)

    def _spelled(self, text: str, answer: str, spans: Sequence[Offsets], clips: Sequence[SpanClips]) -> Example:
        return self.spelling.example(text, answer, spans, clips, self.task.label_words or (), self.task.prompt)

    def _example(
        self, row: _Variant, random: np.random.Generator, settings: RowSettings, find: Find, lookup: Lookup
    ) -> Example:
        clips, text, spans = find(row.texts), row.text, list(row.spans)
        if random.random() < settings.unheard_share:
            clips = [NOTHING] * len(clips)
        elif random.random() < settings.unread_share:
            for place, known in enumerate(clips):
                fits = len(known.scores) > 0 and float(known.scores[0]) >= settings.unread_score
                if fits and MASK not in text[slice(*spans[place])]:
                    text, spans = _renamed(text, spans, place, unread_name(random, self.spelling, lookup))
        return self._spelled(text, row.answer, spans, clips)


def unread_name(random: np.random.Generator, spelling: Spelling, lookup: Lookup) -> str:
    """Return a made-up name, or a hidden one."""
    if random.random() < 0.6:
        return lookup.made_up[random.integers(len(lookup.made_up))]
    return " ".join([spelling.hidden] * int(random.integers(1, 3)))


def _renamed(text: str, spans: list[Offsets], place: int, name: str) -> tuple[str, list[Offsets]]:
    """Put a name in the place of a span and move the others along."""
    start, end = spans[place]
    others = [span for index, span in enumerate(spans) if index != place]
    text, moved = replace_text(text, (start, end), name, others)
    moved.insert(place, (start, start + len(name)))
    return text, moved
