"""Turn rows into questions: candidates, prompts, and comparisons with their spans exchanged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audiobert.auditorybench.align import MASK
from audiobert.auditorybench.data import LETTERS, Row
from audiobert.auditorybench.tasks import Task
from audiobert.errors import InputError
from audiobert.prompts import fill_template

# A determiner moves with its span: "an acoustic bass" stays "an acoustic bass" at the other end of the sentence.
_DETERMINER = re.compile(r"(?:^|(?<=\s))(?:an?|the|some)\s+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    """Hold one question as a model gets it."""

    task: str
    kind: str
    split: str
    row: int
    text: str  # sentence with exactly one `[MASK]`
    answer: str
    spans: tuple[str, ...]  # in the order in which they stand in the question
    span_offsets: tuple[tuple[int, int], ...]  # of the gold spans in `text`, without those that could not be aligned
    candidates: tuple[str, ...] | None  # the allowed answers, or None if any word may be the answer
    shown: str  # text that a causal model is shown
    template: str  # of the prompt that it stands in
    chat_template: str  # of what a user says to a chat model
    where: str
    flipped: bool = False  # spans are exchanged, and the answer is the opposite word

    @property
    def prompt(self) -> str:
        """Return the prompt of a causal language model."""
        return fill_template(self.template, self.shown, choices=_lettered(self.candidates or ()))[0]

    @property
    def chat(self) -> str:
        """Return what a user says to a chat model."""
        return fill_template(self.chat_template, self.shown, choices=_lettered(self.candidates or ()))[0]

    def in_prompt(self, spans: Sequence[tuple[int, int]], *, chat: bool = False) -> list[tuple[int, int]]:
        """Return where spans of `text` stand in `prompt` or `chat`; those that it does not show are left out."""
        template = self.chat_template if chat else self.template
        return fill_template(template, self.shown, spans, _lettered(self.candidates or ()))[1]

    @property
    def before(self) -> str:
        """Return the text before the mask."""
        return self.text[: self.text.index(MASK)]

    @property
    def after(self) -> str:
        """Return the text after the mask."""
        return self.text[self.text.index(MASK) + len(MASK) :]


def label_set(task: Task, train: Sequence[Row] | None) -> tuple[str, ...] | None:
    """Return the candidates that all rows of a task share; None where each row has its own."""
    if task.label_words is not None:
        return tuple(task.label_words)
    if task.candidates == "row":
        return None
    if not train:
        raise InputError(f"the candidates of '{task.name}' are the answers in its train split, which the folder lacks")
    return tuple(sorted({row.answer.casefold() for row in train}))


def _lettered(choices: Iterable[str]) -> str:
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def make_question(
    row: Row, task: Task, path: Path, candidates: tuple[str, ...] | None, *, with_choices: bool = False
) -> Question:
    """Turn a row into a question; with `with_choices`, the candidates are the row's own options."""
    where = f"{path}, row {row.row}"
    text = (
        row.text if MASK in row.text else fill_template(task.cloze, row.text, choices=_lettered(row.choices or ()))[0]
    )
    if text.count(MASK) != 1:
        raise InputError(f"{where}: exactly one {MASK} is wanted, the sentence has {text.count(MASK)}")
    options = row.choices if with_choices else candidates
    if with_choices and not options:
        raise InputError(f"{where}: the row has no options to choose from; use the protocol 'paper'")
    shift = text.find(row.text) if text != row.text else 0
    places = tuple((s + shift, e + shift) for s, e in filter(None, row.span_offsets)) if shift >= 0 else ()
    shown = text if MASK in row.text else row.text
    return Question(
        task=task.name,
        kind=task.kind,
        split=row.split,
        row=row.row,
        text=text,
        answer=row.answer,
        spans=row.spans,
        span_offsets=places,
        candidates=options,
        shown=shown,
        template=task.prompt,
        chat_template=task.chat,
        where=where,
    )


def with_determiner(text: str, place: tuple[int, int]) -> tuple[int, int]:
    """Return the offsets of a span together with the determiner before it."""
    match = _DETERMINER.search(text[: place[0]])
    return (match.start() if match else place[0]), place[1]


def _recase(phrase: str, *, first: bool) -> str:
    """Capitalise a phrase at the beginning of the sentence; elsewhere put its determiner in lower case."""
    if first:
        return phrase[:1].upper() + phrase[1:]
    return re.sub(r"^(An?|The|Some)(?=\s)", lambda match: match.group().lower(), phrase)


def swap_spans(text: str, places: Sequence[tuple[int, int]]) -> str | None:
    """Return the sentence with its two spans and their determiners exchanged; None if that is not possible.

    >>> swap_spans("A bell has a [MASK] pitch than the hum of a fridge.", [(2, 6), (35, 50)])
    'The hum of a fridge has a [MASK] pitch than a bell.'
    """
    if len(places) != 2:
        return None
    (a, b), (c, d) = sorted(with_determiner(text, place) for place in places)
    if b > c:
        return None
    return text[:a] + _recase(text[c:d], first=a == 0) + text[b:c] + _recase(text[a:b], first=False) + text[d:]


def flip(question: Question, task: Task) -> Question | None:
    """Return a comparison with its spans exchanged and the opposite answer; None where a span is not in the text."""
    if task.pair is None or len(question.spans) != 2:
        return None
    text = swap_spans(question.text, question.span_offsets)
    if text is None or text.count(MASK) != 1:
        return None
    first, second = question.spans
    places = []
    for place, start in ((question.span_offsets[1], 0), (question.span_offsets[0], text.index(MASK))):
        phrase = question.text[slice(*place)]  # as it stands in the sentence, not as the row writes it
        at = text.lower().find(phrase.lower(), start)
        if at >= 0:
            places.append((at, at + len(phrase)))
    return replace(
        question,
        text=text,
        answer=task.opposite(question.answer),
        spans=(second, first),
        span_offsets=tuple(places),
        shown=text,
        flipped=True,
    )


def normalise_reply(reply: str) -> str:
    r"""Return a reply as a word to compare: first line, without quotes, final stop and article; case folded.

    >>> normalise_reply(' "The Cat."\n')
    'cat'
    """
    reply = re.sub(r"<think>.*?</think>", "", reply, flags=re.DOTALL).strip()
    line = reply.splitlines()[0] if reply else ""
    line = line.strip(" \t\"'`*_.,;:!?").casefold()
    line = re.sub(r"^(?:an?|the)\s+", "", line)
    return " ".join(line.split())
