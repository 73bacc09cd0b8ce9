"""Find the spans that AuditoryBench names in its sentences, as character offsets.

About 8% of the animal spans and 1% of the pitch spans do not occur in their sentence as written: they differ in case
("Whining" / "whining"), punctuation ("Brela Croatia" / "Brela, Croatia"), inflection ("protecting their eggs" /
"protect its eggs") or are not there at all. `align_spans` finds the first three kinds and says None for the last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Method = Literal["exact", "case", "tolerant", "none"]

MASK = "[MASK]"
# At least this share of a span's content words must be found for a tolerant alignment; chosen by reading animal train.
MINIMUM_COVERAGE = 0.6
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Words that carry no sound: they may differ ("in a nest" / "in nest") without a change of meaning.
_FUNCTION_WORD_LIST = (
    "a an and are as at be being by for from in into is it its of off on or over that the their them then this to up "
    "was with while like made make makes some no not sound sounds noise noises"
)
_FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())
_SUFFIXES = ("ing", "ers", "er", "ed", "es", "s", "e", "y")
_MINIMUM_STEM = 3


@dataclass(frozen=True, slots=True)
class Alignment:
    """Hold the character offsets [start, end) of one span, or None, and how it was found."""

    offsets: tuple[int, int] | None
    method: Method


@dataclass(frozen=True, slots=True)
class _Word:
    stem: str
    start: int
    end: int
    weight: float  # 1 for a content word, 0.25 for a function word


def stem(word: str) -> str:
    """Return a word in lower case without its ending, so that inflections of a word are equal.

    >>> stem("Scrubbing"), stem("scrubs"), stem("dog's")
    ('scrub', 'scrub', 'dog')
    """
    word = word.lower().replace("’", "'").split("'")[0]
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _MINIMUM_STEM:
            word = word.removesuffix(suffix)
            break
    if len(word) > _MINIMUM_STEM and word[-1] == word[-2]:  # scrubbing -> scrub, running -> run
        word = word[:-1]
    return word


def _same(left: str, right: str) -> bool:
    """Return whether stems are equal or have a long common beginning ("distant" / "distance")."""
    if left == right:
        return True
    shorter, longer = sorted((left, right), key=len)
    common = next((i for i, letter in enumerate(shorter) if letter != longer[i]), len(shorter))
    return common >= 4 and common >= 0.7 * len(longer)


def _words(text: str, start: int, end: int) -> list[_Word]:
    found = []
    for match in _WORD.finditer(text, start, end):
        word = match.group()
        weight = 0.25 if word.lower() in _FUNCTION_WORDS else 1.0
        found.append(_Word(stem(word), match.start(), match.end(), weight))
    return found


def _at_boundary(text: str, start: int, end: int) -> bool:
    return not (start > 0 and text[start - 1].isalnum()) and not (end < len(text) and text[end].isalnum())


def _occurrences(text: str, span: str) -> list[tuple[int, int]]:
    """Return every occurrence of `span` in `text`; those at word boundaries first, then those inside a word."""
    places = []
    start = text.find(span)
    while start >= 0:
        places.append((start, start + len(span)))
        start = text.find(span, start + 1)
    return sorted(places, key=lambda place: not _at_boundary(text, *place))


def _tolerant(text: str, span: str, start: int, end: int) -> tuple[int, int] | None:
    """Return the best local alignment (Smith-Waterman over words) of the span in text[start:end], if good enough."""
    wanted = _words(span, 0, len(span))
    given = _words(text, start, end)
    content = sum(word.weight for word in wanted if word.weight == 1.0)
    if not content or not given:
        return None
    gap = 0.2
    # cells[i][j]: score of the best alignment that ends at wanted[i-1], given[j-1]; content matched; first given word.
    previous = [(0.0, 0.0, -1)] * (len(given) + 1)
    best: tuple[float, float, int, int] = (0.0, 0.0, -1, -1)
    for want in wanted:
        current = [(0.0, 0.0, -1)]
        for j, word in enumerate(given, start=1):
            score, matched, first = previous[j - 1]
            candidates = [(0.0, 0.0, -1)]
            if _same(want.stem, word.stem):
                content_match = matched + (want.weight if want.weight == 1.0 else 0.0)
                candidates.append((score + want.weight, content_match, first if first >= 0 else j - 1))
            candidates.append((previous[j][0] - gap * want.weight, *previous[j][1:]))
            candidates.append((current[j - 1][0] - gap * word.weight, *current[j - 1][1:]))
            cell = max(candidates, key=lambda candidate: candidate[0])
            current.append(cell)
            if cell[0] > best[0]:
                best = (*cell, j - 1)
        previous = current
    _, matched, first, last = best
    if first < 0 or matched < MINIMUM_COVERAGE * content:
        return None
    return given[first].start, given[last].end


def _overlaps(place: tuple[int, int], taken: Sequence[tuple[int, int]]) -> bool:
    return any(place[0] < end and start < place[1] for start, end in taken)


def _align_one(text: str, span: str, regions: Sequence[tuple[int, int]], taken: list[tuple[int, int]]) -> Alignment:
    # Lower case keeps every offset except for a few letters outside English ("İ"), where the step is left out.
    lower = text.lower() if len(text.lower()) == len(text) else text
    steps: tuple[tuple[Method, str, str], ...] = (("exact", text, span), ("case", lower, span.lower()))
    for method, sentence, wanted in steps:
        places = [place for place in _occurrences(sentence, wanted) if not _overlaps(place, taken)]
        for start, end in regions:
            inside = [place for place in places if start <= place[0] and place[1] <= end]
            if inside:
                return Alignment(inside[0], method)
    for start, end in regions:
        place = _tolerant(text, span, start, end)
        if place is not None and not _overlaps(place, taken):
            return Alignment(place, "tolerant")
    return Alignment(None, "none")


def align_spans(text: str, spans: Sequence[str]) -> list[Alignment]:
    """Find every span in its sentence, as offsets that neither overlap each other nor the mask.

    Of two spans, the first is looked for before the mask and the second after it, and only if it is not there on the
    other side. `offsets` are None where a span is empty or not in the sentence.

    >>> [a.offsets for a in align_spans("Meow is the sound a [MASK] makes.", ["meow"])]
    [(0, 4)]
    >>> align_spans("The sound of bass is [MASK] than the sound of double bass", ["double bass", "bass"])[1].offsets
    (13, 17)
    """
    masks = [match.span() for match in re.finditer(re.escape(MASK), text)]
    whole = (0, len(text))
    first_mask, last_mask = (masks[0][0], masks[-1][1]) if masks else (len(text), len(text))
    taken = list(masks)
    found: dict[int, Alignment] = {}
    # Longer spans first: "bass" must not be found inside "double bass".
    for index in sorted(range(len(spans)), key=lambda i: -len(spans[i])):
        span = spans[index].strip()
        if not span:
            found[index] = Alignment(None, "none")
            continue
        sides = [(0, first_mask), (last_mask, len(text))]
        regions = [sides[index], whole] if len(spans) == 2 and masks else [whole]
        found[index] = _align_one(text, span, regions, taken)
        place = found[index].offsets
        if place is not None:
            taken.append(place)
    return [found[index] for index in range(len(spans))]
