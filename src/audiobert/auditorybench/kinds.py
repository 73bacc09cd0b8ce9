"""Name kinds of sound as a sentence does, and decide which kinds are withheld from all training.

A fifth of the kinds is withheld, chosen by a hash of the name, so that training, banks and evaluation agree without a
list. Kinds that are nearly the same thing (a goldfinch and an american goldfinch) are withheld together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHARE, REMAINDER = 5, 1  # a family is withheld where the first byte of its hash leaves this remainder
# Words behind the thing itself: of "clock tick" and "violin section" the family is the first word.
_DOINGS = (
    "alarm bite breaking click cleaner closing collapse creaks drops falling flip flush harmonics hiss hit key knock"
    " machine noise opening scratch section shutter strings strum tap tick typing"
)
# Names of one thing that share no word.
_TWINS = {
    "bull": "cow", "ox": "cow", "hen": "chicken", "rooster": "chicken", "lamb": "sheep", "reindeer": "deer",
    "stag": "deer", "seagull": "gull", "crying baby": "baby",
}  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """Facts by which a clip is held out: the `recording` that it was cut from, its label, source and fold."""

    label: str
    source: str
    recording: str
    fold: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Recorded:
        """Read it from a row of a bank's table."""
        extra = json.loads(row.get("extra") or "{}")
        recording = str(extra.get("freesound_id") or row.get("path") or row["id"])
        return cls(words_of(row.get("label") or ""), row.get("source") or "", recording, int(extra.get("fold") or 0))


def words_of(label: str) -> str:
    """Return a label as words, in lower case.

    >>> words_of("church_bells")
    'church bells'
    """
    return " ".join(label.replace("_", " ").lower().split())


def singular(word: str) -> str:
    """Return a word without a plural s.

    >>> singular("bells"), singular("glass")
    ('bell', 'glass')
    """
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def family(label: str) -> str:
    """Return the name that kinds share which are withheld together: the head noun, in the singular.

    >>> family("american goldfinch"), family("violin section"), family("hen")
    ('goldfinch', 'violin', 'chicken')
    """
    name = words_of(label)
    words = name.split() or [""]
    head = singular(words[0] if words[-1] in _DOINGS.split() else words[-1])
    return _TWINS.get(name, _TWINS.get(head, head))


def is_withheld(label: str) -> bool:
    """Return whether a kind is kept out of all training."""
    return hashlib.sha256(family(label).encode()).digest()[0] % SHARE == REMAINDER


def withheld_clips(labels: Sequence[str]) -> np.ndarray:
    """Return which clips are of withheld kinds, `(clips,)` bool."""
    return np.array([bool(label) and is_withheld(label) for label in labels], dtype=bool)


def names_withheld(labels: Collection[str]) -> Callable[[Iterable[str]], bool]:
    """Return a function that returns whether any of some texts names one of these labels that is withheld."""
    names = sorted({words_of(label) for label in labels if label and is_withheld(label)})
    heads = sorted({family(name) for name in names})
    if not heads:
        return lambda _: False
    pattern = re.compile(
        rf"(?<![\w-])(?:{'|'.join(map(re.escape, [*names, *heads]))})(?:s|es)?(?![\w-])", re.IGNORECASE
    )
    return lambda texts: any(pattern.search(text) for text in texts)


def noun_phrase(label: str, caption: str = "") -> str:
    """Return what a kind is called in a sentence, with the article that its caption gives it.

    >>> noun_phrase("piccolo", "a piccolo playing a note"), noun_phrase("sea_waves", "sea waves on a beach")
    ('a piccolo', 'sea waves')
    >>> noun_phrase("airplane"), noun_phrase("insects"), noun_phrase("rain", "rain falling")
    ('an airplane', 'insects', 'rain')
    """
    name = words_of(label)
    if found := re.search(rf"(?:\b(an?|the|some)\s+)?{re.escape(name)}", words_of(caption)) if caption else None:
        return f"{found[1]} {name}" if found[1] else name
    if (last := name.rpartition(" ")[2]) != singular(last):
        return name  # a plural takes no article
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"


def held_out(clips: Sequence[Recorded], share: int = 5) -> np.ndarray:
    """Choose the clips that training leaves out, `(clips,)` bool: one recording in `share` of each label, by its name.

    ESC-10 keeps its published fold 4 apart. All clips of one recording stand on one side.
    """
    by_label: dict[str, list[str]] = {}
    for clip in clips:
        if not clip.source.startswith("ESC-10") and clip.recording not in by_label.setdefault(clip.label, []):
            by_label[clip.label].append(clip.recording)
    chosen: set[str] = set()
    for recordings in by_label.values():
        ranked = sorted(recordings, key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen.update(ranked[: round(len(ranked) / share)])
    fold_4 = {clip.recording for clip in clips if clip.source == "ESC-10" and clip.fold == 4}
    return np.array([clip.recording in chosen or clip.recording in fold_4 for clip in clips])
