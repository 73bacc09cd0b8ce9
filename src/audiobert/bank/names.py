"""Collect the texts that a bank's clips are known by."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

NAME_COLUMNS = ("caption", "label", "title", "path")
"""Columns that `known_as` reads."""
NAMES_PER_CLIP = 2

# What says no more than that a sound is meant: "the sound of a", "a loud noise made by the".
_LEAD = re.compile(
    r"^(?:(?:the|a|an|some|its|their|your|this|that)\s+)?(?:(?:typical|loud|soft|distinct|distinctive)\s+)?"
    r"(?:sounds?|noises?)\s+(?:of|from|made by|produced by)\s+"
)
_ARTICLE = re.compile(r"^(?:the|a|an|some)\s+")


def plain_name(text: str) -> str:
    """Return a name or a query without case, punctuation, leading article and "the sound of".

    >>> plain_name("The sound of a church_bell!"), plain_name("a piccolo playing a note")
    ('church bell', 'piccolo playing a note')
    """
    plain = " ".join(re.sub(r"[^\w\s'-]", " ", text.lower().replace("_", " ")).split())
    return plain[name_start(plain) :] or " ".join(text.lower().split())


def name_start(text: str) -> int:
    """Return where the name in a text begins, behind a leading article and "the sound of"; 0 where nothing follows.

    >>> name_start("the sound of a church bell"), name_start("meow"), name_start("sound of")
    (15, 0, 0)
    """
    lower, start = text.lower(), 0
    for lead in (_LEAD, _ARTICLE) * 2:
        if (found := lead.match(lower[start:])) and re.search(r"\w", lower[start + found.end() :]):
            start += found.end()
    return start


def known_as(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts that a clip is known by: caption and label; without a caption, title or file name, too.

    A file name has underscores and dashes as spaces, and does not count where no letter is in it.

    >>> known_as({"label": "dog", "caption": "a dog barking", "path": "dog/0001.wav"})
    ('dog barking', 'dog')
    >>> known_as({"label": "field", "path": "field/low_piano-note.wav"}), known_as({"path": "0001_2.wav"})
    (('field', 'low piano note'), ())
    """
    given = [text for column in ("caption", "label") if (text := (row.get(column) or "").strip())]
    if not (row.get("caption") or "").strip():
        stem = PurePosixPath(row.get("path") or "").stem
        title = (row.get("title") or "").strip() or stem
        given.append(title.replace("_", " ").replace("-", " ") if title == stem else title)
    found = [plain_name(text) for text in given if any(character.isalpha() for character in text)]
    return tuple(dict.fromkeys(found))[:NAMES_PER_CLIP]


@dataclass(frozen=True)
class ClipNames:
    """The distinct texts that clips are known by, in order of first occurrence.

    `rows` is `(clips, 2)` int32, the index of each clip's texts; -1 where a clip has fewer.
    """

    texts: list[str]
    rows: np.ndarray


def names_of(clips: Iterable[Sequence[str]]) -> ClipNames:
    """Collect the texts that clips are known by, given those of each clip."""
    places: dict[str, int] = {}
    rows = array("i")
    for texts in clips:
        rows.extend(places.setdefault(text, len(places)) for text in texts)
        rows.extend([-1] * (NAMES_PER_CLIP - len(texts)))
    return ClipNames(list(places), np.array(rows, np.int32).reshape(-1, NAMES_PER_CLIP))


def clip_names(table: Iterable[pa.RecordBatch]) -> ClipNames:
    """Collect the texts that the clips of a table are known by; see `known_as`."""
    batches = (batch.select([name for name in NAME_COLUMNS if name in batch.schema.names]) for batch in table)
    return names_of(known_as(row) for batch in batches for row in batch.to_pylist())
