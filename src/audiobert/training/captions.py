"""Make training sentences of captions: one word is missing, and clips of the rest are injected.

They keep the language model able to predict any word in a sentence about sound, not only the benchmark's answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from audiobert.auditorybench.kinds import words_of
from audiobert.detector import SpanDetector
from audiobert.sentence import MASK, Offsets, replace_text
from audiobert.training.batches import NOTHING, Example
from audiobert.training.clips import TrainingClips
from audiobert.training.rows import Find
from audiobert.training.spelling import Spelling

MOST = 3500  # captions that are read
COMMON = 60  # number of the most frequent words that are never masked, as they say too little
UNHEARD = 0.2
# "a dog barking loudly": an article, the thing, and what it does.
_THING_DOING = re.compile(r"^(?:(an?|the|some) )?(.+?) (\w+ing\b.*)$")
THING_TEMPLATES = (
    "The sound of {thing} {doing}.",
    "{doing} is the noise that {thing} makes.",
    "You can hear the {doing} of {thing}.",
    "The {doing} of {thing}.",
    "That sound of {doing} comes from {thing}.",
    "It is {thing} {doing}.",
    "The sound is like {thing} {doing}.",
)
DOING_TEMPLATES = (
    "The sound of {thing} {doing}.",
    "It is {thing} {doing}.",
    "You can hear {thing} {doing}.",
    "{thing} is {doing}.",
)


class Captions:
    """Captions of sounds, written by people, with one word missing; some are read, the same ones in every run."""

    def __init__(self, captions: Sequence[str], detector: SpanDetector, spelling: Spelling) -> None:
        self.spelling = spelling
        fitting = sorted({caption for caption in captions if 4 <= len(caption.split()) <= 16})
        order = np.random.default_rng(0).permutation(len(fitting))[:MOST]
        chosen = [fitting[i] for i in order]
        frequent = Counter(word for caption in chosen for word in re.findall(r"[a-z]+", caption.lower()))
        common = {word for word, _ in frequent.most_common(COMMON)}
        self.captions: list[tuple[str, list[Offsets], list[Offsets]]] = []  # text, spans, words that may be missing
        for caption, spans in zip(chosen, detector.detect(chosen), strict=True):
            words = [m.span() for m in re.finditer(r"[A-Za-z]+", caption) if m.group().lower() not in common]
            if spans and words:
                self.captions.append((caption, [(span.start, span.end) for span in spans], words))

    def span_texts(self) -> set[str]:
        """Return every text that is looked up."""
        return {text[start:end] for text, spans, _ in self.captions for start, end in spans}

    def examples(self, count: int, random: np.random.Generator, find: Find) -> list[Example]:
        """Return that many captions with one word missing."""
        if not self.captions:
            return []
        drawn = (self.captions[i] for i in random.integers(len(self.captions), size=count))
        return [self._example(text, spans, words, random, find) for text, spans, words in drawn]

    def _example(
        self, text: str, spans: list[Offsets], words: list[Offsets], random: np.random.Generator, find: Find
    ) -> Example:
        start, end = words[random.integers(len(words))]
        word = text[start:end]
        found = find([text[a:b] for a, b in spans])
        clips = [
            NOTHING if (a < end and b > start) else NOTHING if random.random() < UNHEARD else own
            for (a, b), own in zip(spans, found, strict=True)
        ]
        masked, moved = replace_text(text, (start, end), MASK, spans)
        return self.spelling.example(masked, word, moved, clips)


class ClipCaptions:
    """Captions of clips: the thing is missing and clips of what it does are injected, or the other way round."""

    def __init__(self, clips: TrainingClips, allowed: np.ndarray, spelling: Spelling) -> None:
        self.spelling = spelling
        found = set()
        for index in np.flatnonzero(allowed):
            match = _THING_DOING.match(words_of(clips.clips[index].name))
            if match and "note" not in match.group(3):
                found.add((f"{match.group(1)} " if match.group(1) else "", match.group(2), match.group(3)))
        self.captions = sorted(found)

    def span_texts(self) -> set[str]:
        """Return every text that is looked up."""
        return {text for article, thing, doing in self.captions for text in (article + thing, doing)}

    def examples(self, count: int, random: np.random.Generator, find: Find) -> list[Example]:
        """Return that many of them."""
        if not self.captions:
            return []
        drawn = (self.captions[i] for i in random.integers(len(self.captions), size=count))
        return [self._example(article, thing, doing, random, find) for article, thing, doing in drawn]

    def _example(self, article: str, thing: str, doing: str, random: np.random.Generator, find: Find) -> Example:
        missing_thing = random.random() < 0.7
        templates = THING_TEMPLATES if missing_thing else DOING_TEMPLATES
        template = templates[random.integers(len(templates))]
        first, _, rest = doing.partition(" ")
        missing = thing if missing_thing else first
        parts = {
            "{thing}": article + (MASK if missing_thing else thing),
            "{doing}": doing if missing_thing else f"{MASK} {rest}".strip(),
        }
        heard = parts["{doing}" if missing_thing else "{thing}"]
        text = template
        for place, words in parts.items():
            text = text.replace(place, words)
        text = text[:1].upper() + text[1:]
        at = text.lower().index(heard.lower())
        looked_up = find([doing if missing_thing and random.random() < 0.5 else article + thing])[0]
        clips = NOTHING if random.random() < UNHEARD else looked_up
        return self.spelling.example(text, missing, [(at, at + len(heard))], [clips])
