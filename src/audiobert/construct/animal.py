"""Make rows of animal sound recognition: a clip becomes a sentence with one [MASK], the animal, and the span."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audiobert.construct.asking import Asker, Reply, answer_of
from audiobert.construct.categorize import clip_fields
from audiobert.construct.labels import LabelFilter
from audiobert.construct.prompts import AnimalAnswer, load_prompt
from audiobert.construct.records import AnimalRow, CategorizedClip, Rejected
from audiobert.construct.rules import BrokenRuleError, check_answer_hidden, check_mask, locate_span
from audiobert.settings import Settings

STEP = "animal"


class AnimalSettings(Settings):
    """Settings of the animal step: prompt, category of the animals, file with a person's decisions on labels."""

    prompt: str = "animal.v1"
    root: str = "animal"
    labels: Path | None = None


def make_animal_rows(
    clips: Sequence[CategorizedClip], asker: Asker, settings: AnimalSettings, labels: LabelFilter
) -> tuple[list[AnimalRow], list[Rejected]]:
    """Ask for a question about every clip under `animal/`; keep those that hold the rules."""
    prompt = load_prompt(settings.prompt)
    clips = [clip for clip in clips if clip.category.split("/")[0] == settings.root]
    replies = asker.ask(prompt, [{"category": clip.category, **clip_fields(clip)} for clip in clips])
    rows, rejected = [], []
    for clip, reply in zip(clips, replies, strict=True):
        try:
            rows.append(_row(clip, reply, labels))
        except BrokenRuleError as error:
            rejected.append(error.rejected(STEP, clip.id, reply.text))
    return rows, rejected


def _row(clip: CategorizedClip, reply: Reply, labels: LabelFilter) -> AnimalRow:
    answer = answer_of(reply, AnimalAnswer)
    if not answer.usable:
        raise BrokenRuleError("not-usable", "the text does not say which animal it is, or how it sounds")
    sentence = answer.sentence
    check_mask(sentence)
    start, end = locate_span(sentence, answer.span)
    label = labels.check(answer.animal, sentence)
    check_answer_hidden(sentence, label)
    check_answer_hidden(sentence, answer.animal)
    return AnimalRow(
        id=f"animal-{clip.id}",
        sentence=sentence,
        answer=label,
        span=sentence[start:end],
        category=clip.category,
        clip_id=clip.id,
        **clip.credits(),
    )
