"""The benchmark's train rows as examples: gold or detected spans, comparisons both ways round, retrieved clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from audiobert.auditorybench.data import load_split, split_path
from audiobert.auditorybench.made_up import made_up_name
from audiobert.auditorybench.models.masked import Vocabulary
from audiobert.auditorybench.questions import Question, flip, make_question
from audiobert.auditorybench.tasks import Task, find_task
from audiobert.detector import SpanDetector
from audiobert.sentence import MASK, Offsets, fill_mask, replace_text
from audiobert.settings import Settings
from audiobert.training.batches import NOTHING, Example, SpanClips


class RowSettings(Settings):
    """How the benchmark's rows are used in an epoch.

    Attributes
    ----------
    detected_share
        Share of the rows that get the detector's spans in place of the published ones.
    swap_share
        Share of the comparisons that are turned round: spans exchanged, answer flipped.
    unread_share
        Share of the spans whose wordpieces are hidden, where the retrieved clips fit with at least `unread_score`.
    unheard_share
        Share of the sentences without knowledge.
    """

    detected_share: float = 0.5
    swap_share: float = 0.25
    unread_share: float = 0.0
    unread_score: float = 0.5
    unheard_share: float = 0.0


class Spelling:
    """From words to the tokens of an answer, as the benchmark spells it, and to the masks that ask for them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = Vocabulary(tokenizer, "the language model")
        unknown = tokenizer.unk_token
        self.hidden = str(unknown if unknown is not None else tokenizer.pad_token)
        """A token that stands for hidden wordpieces and that no text of a user brings in."""

    def tokens(self, text: str, word: str) -> tuple[int, ...]:
        """Return the wordpieces of a word in the place of the text's mask, in lower case."""
        before, _, after = text.partition(MASK)
        return self._vocabulary.pieces_between(before[-1:], word.lower(), after[:1])

    def masks(self, count: int) -> str:
        """Return that many masks."""
        return " ".join([str(self._tokenizer.mask_token)] * count)


# From the texts of spans to their clips.
Find = Callable[[Sequence[str]], list[SpanClips]]


def read_questions(data: Path, task: Task, split: str) -> list[Question]:
    """Return the rows of a split as questions, without the few published sentences that have several masks."""
    path = split_path(data, task, split)
    rows = [row for row in load_split(data, task, split) if row.text.count(MASK) == 1]
    return [make_question(row, task, path, None) for row in rows]


class TrainRows:
    """The train rows of one task.

    Parameters
    ----------
    keep
        Which questions may be learnt from; those about withheld kinds may not.
    """

    def __init__(
        self,
        data: Path,
        task: str,
        spelling: Spelling,
        detector: SpanDetector,
        keep: Callable[[Question], bool],
        split: str = "train",
    ) -> None:
        self.task, self.spelling = find_task(task), spelling
        questions = read_questions(data, self.task, split)
        self.questions = [question for question in questions if keep(question)]
        self.left_out = len(questions) - len(self.questions)
        found = detector.detect([question.text for question in self.questions])
        self.detected = [tuple((span.start, span.end) for span in spans) for spans in found]

    def __len__(self) -> int:
        return len(self.questions)

    def span_texts(self) -> set[str]:
        """Return every text that is looked up: gold and detected spans, either way round."""
        return {
            question.text[start:end]
            for question, detected in zip(self.questions, self.detected, strict=True)
            for start, end in (*question.span_offsets, *detected)
        } | {
            turned.text[start:end]
            for question, detected in zip(self.questions, self.detected, strict=True)
            for spans in (question.span_offsets, detected)
            if (turned := self.turned(question, spans)) is not None
            for start, end in turned.span_offsets
        }

    def turned(self, question: Question, spans: Sequence[Offsets]) -> Question | None:
        """Return a comparison the other way round, with these spans; None where it is none or cannot be turned."""
        texts = tuple(question.text[start:end] for start, end in spans)
        return flip(replace(question, spans=texts, span_offsets=tuple(spans)), self.task)

    def examples(self, random: np.random.Generator, settings: RowSettings, find: Find) -> list[Example]:
        """Return the rows as the examples of one epoch; rows without any span are left out."""
        made = []
        for question, detected in zip(self.questions, self.detected, strict=True):
            gold = question.span_offsets
            spans = detected if detected and (not gold or random.random() < settings.detected_share) else gold
            if not spans:
                continue
            if random.random() < settings.swap_share and (turned := self.turned(question, spans)) is not None:
                question, spans = turned, turned.span_offsets
            unheard = random.random() < settings.unheard_share
            made.append(self._example(question, sorted(spans), random, settings, find, unheard=unheard))
        return made

    def _example(
        self,
        question: Question,
        spans: Sequence[Offsets],
        random: np.random.Generator,
        settings: RowSettings,
        find: Find,
        *,
        unheard: bool,
    ) -> Example:
        found = find([question.text[start:end] for start, end in spans])
        text, places = question.text, list(spans)
        for place, clips in enumerate(found):
            fits = len(clips.scores) > 0 and float(clips.scores[0]) >= settings.unread_score
            if fits and not unheard and random.random() < settings.unread_share:
                text, places = self._unread(text, places, place, random)
        answer = self.spelling.tokens(text, question.answer)
        text, moved = fill_mask(text, places, self.spelling.masks(len(answer)))
        return Example(text, answer, tuple(moved), tuple(NOTHING if unheard else one for one in found))

    def _unread(
        self, text: str, spans: list[Offsets], place: int, random: np.random.Generator
    ) -> tuple[str, list[Offsets]]:
        """Put a made-up name, or the token of a hidden one, in the place of a span; none that touches the mask."""
        start, end = spans[place]
        if MASK in text[start:end]:
            return text, spans
        name = made_up_name(random) if random.random() < 0.5 else self.spelling.hidden
        others = [span for index, span in enumerate(spans) if index != place]
        text, moved = replace_text(text, (start, end), name, others)
        moved.insert(place, (start, start + len(name)))
        return text, moved
