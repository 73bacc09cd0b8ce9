"""Ask for the category of each clip, a path such as `animal/dog/pomeranian`, from the clip's texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audiobert.construct.asking import Asker, answer_of
from audiobert.construct.prompts import CategoryAnswer, load_prompt
from audiobert.construct.records import CANNOT_SAY, CategorizedClip, Rejected, SourceClip
from audiobert.construct.rules import BrokenRuleError, check_category
from audiobert.settings import Settings

STEP = "categorize"


class CategorizeSettings(Settings):
    """Settings of the categories: the prompt, and the first parts that a category may have."""

    prompt: str = "categorize.v1"
    roots: tuple[str, ...] = ("animal", "human", "music", "object", "environment", "synthetic")


def clip_fields(clip: SourceClip) -> dict[str, Any]:
    """Return the texts of a clip as fields of a prompt."""
    return {
        "title": clip.title,
        "description": clip.description,
        "tags": list(clip.tags),
        "captions": list(clip.captions),
    }


def categorize(
    clips: Sequence[SourceClip], asker: Asker, settings: CategorizeSettings
) -> tuple[list[CategorizedClip], list[Rejected]]:
    """Ask for the category of every clip; clips without any text get `0` without a request."""
    asked = [clip for clip in clips if any(clip_fields(clip).values())]
    replies = asker.ask(load_prompt(settings.prompt), [clip_fields(clip) for clip in asked])
    reply_of = dict(zip((clip.id for clip in asked), replies, strict=True))
    categorized, rejected = [], []
    for clip in clips:
        category = CANNOT_SAY
        if reply := reply_of.get(clip.id):
            try:
                category = answer_of(reply, CategoryAnswer).category.strip()
                if category != CANNOT_SAY:
                    category = check_category(category, settings.roots)
            except BrokenRuleError as error:
                rejected.append(error.rejected(STEP, clip.id, reply.text))
                continue
        categorized.append(CategorizedClip(**clip.model_dump(), category=category))
    return categorized, rejected
