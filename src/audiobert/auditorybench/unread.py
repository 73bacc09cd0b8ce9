"""Evaluate a model on kinds of sound that are withheld from all training but present in its bank.

All questions are about the model's own bank, which holds clips of the withheld kinds (`kinds.is_withheld`): comparisons
of withheld kinds with each other and with known ones, under their own names and under made-up names, with their clips
in the bank and without; and the names of recordings that are handed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audiobert.answers import Hit
from audiobert.auditorybench.attributes import Attribute, builtin_attributes, measurement_of_kind
from audiobert.auditorybench.kinds import Recorded, held_out, is_withheld, noun_phrase, words_of
from audiobert.auditorybench.made_up import made_up_names
from audiobert.auditorybench.metrics import Answered
from audiobert.auditorybench.models.audiobert import AudioBertModel
from audiobert.auditorybench.questions import Question
from audiobert.bank import AudioBank
from audiobert.bank.names import known_as, names_of, plain_name
from audiobert.errors import InputError
from audiobert.prompts import blank_template

if TYPE_CHECKING:
    from audiobert.pipeline import AudioBert

TASK = "unread"
MEASURE = "pitch_hz"
PAIRS = 400  # of withheld kinds with each other
KNOWN_PER_KIND = 8
TEMPLATES = (
    "The sound of {x} has a [MASK] pitch than the sound of {y}.",
    "The sound of {x} is [MASK] than the sound of {y}.",
)
NAMING = "This is the sound of {a}[MASK]."


@dataclass(frozen=True)
class Kind:
    """A kind of the bank: its name in a sentence, its rows, and its measurement as a binary logarithm."""

    label: str
    phrase: str
    rows: tuple[int, ...]
    measured: float | None

    @property
    def withheld(self) -> bool:
        """Whether no training contained the kind."""
        return is_withheld(self.label)


@dataclass(frozen=True)
class Condition:
    """One set of questions under one condition: `task` names the questions, `split` what the model has."""

    task: str
    split: str
    answered: list[Answered]


def kinds_of(bank: AudioBank, attribute: Attribute) -> list[Kind]:
    """Return the kinds of a bank by label, each with its measurement of an attribute."""
    columns = bank.table.select(["label", "caption", attribute.measure]).to_pylist()
    by_label: dict[str, list[int]] = {}
    for row, values in enumerate(columns):
        if values["label"]:
            by_label.setdefault(words_of(values["label"]), []).append(row)
    kinds = []
    for label, rows in sorted(by_label.items()):
        measured = measurement_of_kind(attribute.logarithms([columns[row][attribute.measure] for row in rows]))
        kinds.append(Kind(label, noun_phrase(label, columns[rows[0]]["caption"] or ""), tuple(rows), measured))
    return kinds


def evaluate_unread(model: AudioBert, *, name: str = "", limit: int | None = None) -> Iterator[Condition]:
    """Ask a model everything about sounds never read about; yield one condition after the other.

    Parameters
    ----------
    limit : int, optional
        Ask only the first questions of each condition, at most this many.

    Raises
    ------
    InputError
        The model's bank has no labels, or too few withheld kinds with a pitch.
    """
    attribute = next(a for a in builtin_attributes() if a.measure == MEASURE)
    kinds = kinds_of(model.bank, attribute)
    unread = [kind for kind in kinds if kind.withheld and kind.measured is not None]
    known = [kind for kind in kinds if not kind.withheld and kind.measured is not None]
    if len(unread) < 2 or not known:
        raise InputError(
            f"the task {TASK} needs a bank with labels and at least two withheld kinds with a pitch; this one has"
            f" {len(unread)} of {len(kinds)} kinds; evaluate the model with its own bank"
        )
    names = made_up_names(kind.label for kind in kinds if kind.withheld)
    renamed = model.with_bank(rename(model, names), only=True)
    withheld = [model.bank.clip(row).id for kind in kinds if kind.withheld for row in kind.rows]
    conditions: dict[str, dict[str, Any]] = {
        "bank-added": {},
        "bank-not-added": {"exclude": withheld},
        "unheard": {"sound": "unheard"},
    }
    random = np.random.default_rng(3)
    pairs = different_pairs(unread, unread, PAIRS, attribute, random)[:limit]
    with_known = different_pairs(unread, known, KNOWN_PER_KIND * len(unread), attribute, random)[:limit]
    own = {kind.label: kind.phrase for kind in kinds}
    made_up = own | {label: f"{'an' if one[0] in 'aeiou' else 'a'} {one}" for label, one in names.items()}
    for task, asked, called, pipeline in (
        ("made-up", pairs, made_up, renamed),
        ("made-up-known", with_known, made_up, renamed),
        ("own", pairs, own, model),
        ("own-known", with_known, own, model),
    ):
        questions = [comparison(f"{TASK}-{task}", i, *pair, called, attribute) for i, pair in enumerate(asked)]
        for split, options in conditions.items() if asked else ():
            adapter = AudioBertModel(pipeline, name or model.name, **options)
            yield Condition(f"{TASK}-{task}", split, _ask(adapter, questions))
    yield from _namings(model, kinds, limit)


def _ask(adapter: AudioBertModel, questions: Sequence[Question]) -> list[Answered]:
    found = dict(adapter.answer(questions, "paper"))
    return [Answered(question, found[number]) for number, question in enumerate(questions)]


def rename(model: AudioBert, names: dict[str, str]) -> AudioBank:
    """Return the model's bank with the names of some kinds replaced in what their clips are known by."""
    bank = model.bank
    rows = bank.table.select(["caption", "label", "title", "path"]).to_pylist()
    texts: list[Sequence[str]] = []
    for row in rows:
        label, known = words_of(row["label"] or ""), known_as(row)
        if made_up := names.get(label):
            pattern = rf"\b{re.escape(plain_name(label))}(?:s|es)?\b"
            known = tuple(re.sub(pattern, made_up, text) for text in known)
            known = tuple(text if made_up in text else made_up for text in known)
        texts.append(known)
    renamed = names_of(texts)
    return bank.with_names(renamed, model.clip_encoder().embed_names(renamed.texts))


def different_pairs(
    first: Sequence[Kind], second: Sequence[Kind], count: int, attribute: Attribute, random: np.random.Generator
) -> list[tuple[Kind, Kind]]:
    """Draw pairs whose measurements differ by more than the attribute's ratio, in either order."""
    least = math.log2(attribute.min_ratio)
    pairs = [
        (one, other)
        for one in first
        for other in second
        if (first is not second or one.label < other.label)
        and one.measured is not None
        and other.measured is not None
        and abs(one.measured - other.measured) > least
    ]
    chosen = [pairs[i] for i in random.permutation(len(pairs))[:count]]
    return [
        pair if turned else pair[::-1] for pair, turned in zip(chosen, random.random(len(chosen)) < 0.5, strict=True)
    ]


def comparison(task: str, row: int, x: Kind, y: Kind, called: dict[str, str], attribute: Attribute) -> Question:
    """Return the comparison of two kinds as a question."""
    names = called[x.label], called[y.label]
    text = TEMPLATES[row % len(TEMPLATES)].format(x=names[0], y=names[1])
    starts = text.index(names[0]), text.rindex(names[1])
    assert x.measured is not None and y.measured is not None
    answer = attribute.words[0] if x.measured > y.measured else attribute.words[1]
    places = [(at, at + len(one)) for at, one in zip(starts, names, strict=True)]
    return _question(task, row, text, answer, places, attribute.words)


def _question(
    task: str,
    row: int,
    text: str,
    answer: str,
    places: Sequence[tuple[int, int]],
    words: tuple[str, str] | None = None,
) -> Question:
    return Question(
        task=task,
        kind="comparison" if words else "cloze",
        split="",
        row=row,
        text=text,
        answer=answer,
        spans=tuple(text[slice(*place)] for place in places),
        span_offsets=tuple(places),
        candidates=words,
        shown=text,
        template=blank_template(words) if words else blank_template(),
        chat_template="{text}",
        where=f"{task}, question {row}",
    )


def _namings(model: AudioBert, kinds: Sequence[Kind], limit: int | None) -> Iterator[Condition]:
    """Ask what recordings are that are handed over: held-out ones of known kinds, and those of withheld kinds."""
    clips = [Recorded.of(row) for row in model.bank.rows()]
    apart = held_out(clips)
    known = [(kind, row) for kind in kinds if not kind.withheld for row in kind.rows if apart[row]]
    unread = [(kind, row) for kind in kinds if kind.withheld for row in kind.rows]
    for split, asked in (("held-out", known), ("withheld-kinds", unread)):
        if asked:
            yield Condition(f"{TASK}-naming", split, name_recordings(model, asked[:limit]))


def name_recordings(model: AudioBert, asked: Sequence[tuple[Kind, int]]) -> list[Answered]:
    """Ask what clips of the bank are, each given as a recording."""
    questions, hits = [], []
    for number, (kind, row) in enumerate(asked):
        article = kind.phrase.removesuffix(kind.label)
        text = NAMING.format(a=article if article.strip() in ("a", "an", "the", "some") else "")
        questions.append(_question(f"{TASK}-naming", number, text, kind.label, [(0, 4)]))
        hits.append([(Hit(model.bank.clip(row), 0.99, row, model.bank.knowledge_vectors[row]),)])
    return _ask(AudioBertModel(model, model.name, spans="gold", hits=hits), questions)
