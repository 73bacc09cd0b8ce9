"""Make training sentences of the bank's own clips, whose answers can be known only from the clips.

Comparisons of a measured attribute between two kinds, or two clips, under their own names, made-up names, hidden names,
or words without content; and naming what a clip is. The attributes with their words come from YAML files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from audiobert.auditorybench.attributes import Attribute, builtin_attributes, measurement_of_kind
from audiobert.auditorybench.kinds import noun_phrase, words_of
from audiobert.sentence import Offsets
from audiobert.settings import Settings
from audiobert.training.batches import NOTHING, Example, SpanClips, given_clip
from audiobert.training.clips import TrainingClips
from audiobert.training.config import Fraction
from audiobert.training.lookup import Lookup
from audiobert.training.rows import unread_name
from audiobert.training.spelling import Spelling

# A clip that is handed over is the thing itself: its score.
GIVEN = 0.99
ATTEMPTS = 50
NAMING = (
    ("This is the sound of {a}[MASK].", ("This", "sound")),
    ("This sound is made by {a}[MASK].", ("This", "sound")),
    ("Here you can hear {a}[MASK].", ("Here",)),
    ("This recording is of {a}[MASK].", ("This", "recording")),
    ("That sound comes from {a}[MASK].", ("That", "sound")),
    ("Listen to this: it is {a}[MASK].", ("Listen", "this")),
)
WITHOUT_CONTENT = (
    ("the first sound", "the second sound"),
    ("sound A", "sound B"),
    ("this sound", "that sound"),
    ("the first recording", "the second recording"),
    ("one", "the other"),
    ("the former", "the latter"),
    ("the sound here", "the sound there"),
    ("this", "that"),
    ("the first", "the second"),
)


class GroundingSettings(Settings):
    """Settings of the grounding sentences: how many per epoch, and of what form.

    Attributes
    ----------
    comparisons, extremes, names, clip_captions, captions
        Sentences per epoch: comparisons (twins count), single sounds that are high or low, namings, captions of clips
        with the thing or its doing masked, and AudioCaps captions with a word masked.
    twins
        Let every comparison come both ways round, side by side.
    clip_share
        Share of the comparisons that are of two clips, not of two kinds.
    read_share, unheard_share, mixed_share
        Shares of the comparisons of kinds that have both names and clips; names of which one has no clips of its own;
        one name and one unread name. The rest has no names to read.
    nearest_share
        Share of the names without clips of their own that get the clips of what is nearest instead of none.
    relatives_share
        Share of the comparisons of kinds under names that say nothing, of which one at least has only the clips of what
        is nearest to it.
    """

    comparisons: int = Field(default=0, ge=0)
    extremes: int = Field(default=0, ge=0)
    names: int = Field(default=0, ge=0)
    clip_captions: int = Field(default=0, ge=0)
    captions: int = Field(default=0, ge=0)
    twins: bool = True
    clip_share: Fraction = 0.25
    read_share: Fraction = 0.15
    unheard_share: Fraction = 0.5
    mixed_share: Fraction = 0.15
    nearest_share: Fraction = 0.5
    relatives_share: Fraction = 0.0

    @property
    def of_clips(self) -> int:
        """Number of sentences that are made of recordings."""
        return self.comparisons + self.extremes + self.names + self.clip_captions


@dataclass(frozen=True)
class Kind:
    """A kind of sound with the clips that may be learnt from and their measurements, as binary logarithms."""

    label: str
    phrase: str
    clips: tuple[int, ...]
    measured: dict[str, float]

    @property
    def article(self) -> str:
        """Its article with a space behind it, or nothing."""
        article = self.phrase.removesuffix(words_of(self.label))
        return article if article.strip() in ("a", "an", "the", "some") else ""


@dataclass(frozen=True)
class Phrase:
    """A piece of a sentence about one sound, the place in it where its span begins, and its clips."""

    text: str
    start: int
    clips: SpanClips


class Grounding:
    """Maker of grounding sentences from the training clips that may be learnt from, `allowed` `(clips,)` bool."""

    def __init__(
        self,
        clips: TrainingClips,
        allowed: np.ndarray,
        spelling: Spelling,
        lookup: Lookup,
        settings: GroundingSettings,
        attributes: Sequence[Attribute] | None = None,
    ) -> None:
        self.spelling, self.lookup, self.settings = spelling, lookup, settings
        self.attributes = list(builtin_attributes() if attributes is None else attributes)
        self.values = {a.name: a.logarithms([clip.row.get(a.measure) for clip in clips.clips]) for a in self.attributes}
        by_label: dict[str, list[int]] = {}
        for index in np.flatnonzero(allowed):
            if label := clips.labels[index]:
                by_label.setdefault(label, []).append(int(index))
        self.kinds = [self._kind(label, members, clips) for label, members in sorted(by_label.items())]
        self.kind_of = {index: kind for kind in self.kinds for index in kind.clips}
        lookup.prepare(kind.phrase for kind in self.kinds)
        labels = np.array(clips.labels)
        self.nearest = {
            kind.label: lookup.prepare([kind.phrase], allowed & (labels != kind.label))[0]
            for kind in self.kinds
            if settings.comparisons + settings.extremes and len(self.kinds) > 1
        }

    def _kind(self, label: str, members: list[int], clips: TrainingClips) -> Kind:
        measured = {}
        for name, values in self.values.items():
            if (own := measurement_of_kind(values[members])) is not None:
                measured[name] = own
        captions = [clips.clips[index].row.get("caption") or "" for index in members]
        return Kind(label, noun_phrase(label, captions[0]), tuple(members), measured)

    def examples(self, random: np.random.Generator) -> list[Example]:
        """Return the sentences of one epoch, but for captions."""
        if not self.kinds:
            return []
        settings = self.settings
        draws = settings.comparisons // (1 + settings.twins)
        made = [one for _ in range(draws) for one in self.comparison(random)]
        made += [one for _ in range(settings.extremes) if (one := self.extreme(random)) is not None]
        return made + [self.naming(random) for _ in range(settings.names)]

    # --- comparisons --------------------------------------------------------------------------------------------------

    def comparison(self, random: np.random.Generator) -> list[Example]:
        """Return a comparison of one attribute and its twin; nothing where no two sounds differ enough."""
        attribute = self._draw(self.attributes, random)
        of_clips = random.random() < self.settings.clip_share
        pair = self._pair(attribute, random, of_clips=of_clips)
        if pair is None:
            return []
        (first, one), (second, other) = pair
        if of_clips:
            phrases = self._unread_phrases(random, [given_clip(first, GIVEN), given_clip(second, GIVEN)])
        else:
            phrases = self._phrases(random, attribute, self.kinds[first], self.kinds[second])
        template = attribute.templates[random.integers(len(attribute.templates))]
        more, less = attribute.words
        made = [
            self._example(template, {"x": phrases[0], "y": phrases[1]}, more if one > other else less, (more, less))
        ]
        if self.settings.twins:
            turned = less if one > other else more
            made.append(self._example(template, {"x": phrases[1], "y": phrases[0]}, turned, (more, less)))
        return made

    @staticmethod
    def _draw(attributes: Sequence[Attribute], random: np.random.Generator) -> Attribute:
        weights = np.array([attribute.weight for attribute in attributes])
        return attributes[random.choice(len(weights), p=weights / weights.sum())]

    def _pair(
        self, attribute: Attribute, random: np.random.Generator, *, of_clips: bool
    ) -> list[tuple[int, float]] | None:
        """Draw two clips, or two kinds, that differ by more than the attribute's ratio, with their values.

        None where none are found soon.
        """
        values: Any = self.values[attribute.name]
        if of_clips:
            having = [index for index in self.kind_of if np.isfinite(values[index])]
        else:
            values = [kind.measured.get(attribute.name) for kind in self.kinds]
            having = [index for index, value in enumerate(values) if value is not None]
        for _ in range(ATTEMPTS if len(having) > 1 else 0):
            first, second = (having[i] for i in random.choice(len(having), size=2, replace=False))
            one, other = float(values[first]), float(values[second])
            if abs(one - other) > math.log2(attribute.min_ratio):
                return [(first, one), (second, other)]
        return None

    def _phrases(self, random: np.random.Generator, attribute: Attribute, *kinds: Kind) -> list[Phrase]:
        """Return phrases for two kinds: which are read, and which have clips, is drawn."""
        chance, settings = random.random(), self.settings
        found = self.lookup([kind.phrase for kind in kinds])
        named = attribute.weight == max(a.weight for a in self.attributes)  # the attribute that names say something of
        if named and random.random() < settings.relatives_share:
            near = [self.nearest[kind.label] for kind in kinds]
            if random.random() < 0.3:
                place = int(random.integers(len(kinds)))
                near[place] = found[place]
            return [self._made_up(random, known) for known in near]
        read, heard = [False, False], [True, True]
        if chance < settings.read_share:
            read = [True, True]
        elif chance < settings.read_share + settings.unheard_share:
            # Names say how high a thing sounds, but hardly how long one recording of it lasts.
            if attribute.extremes is not None and named:
                read, heard = [True, True], [False, False]
        elif chance < settings.read_share + settings.unheard_share + settings.mixed_share:
            read = [True, False] if random.random() < 0.5 else [False, True]
            if random.random() < 0.3:
                heard = [not one for one in read]
        clips = list(found)
        for place, kind in enumerate(kinds):
            if not heard[place]:
                clips[place] = self.nearest[kind.label] if random.random() < settings.nearest_share else NOTHING
        if not any(read):
            return self._unread_phrases(random, clips)
        return [
            self._named(random, kind.phrase, known) if is_read else self._made_up(random, known)
            for kind, known, is_read in zip(kinds, clips, read, strict=True)
        ]

    def _unread_phrases(self, random: np.random.Generator, clips: Sequence[SpanClips]) -> list[Phrase]:
        """Return two phrases that say nothing about their sounds."""
        if random.random() < 0.25:
            pair = WITHOUT_CONTENT[random.integers(len(WITHOUT_CONTENT))]
            return [Phrase(text, _word_start(text, random), known) for text, known in zip(pair, clips, strict=True)]
        return [self._made_up(random, known) for known in clips]

    def _made_up(self, random: np.random.Generator, clips: SpanClips) -> Phrase:
        """Return a phrase with a made-up name, or with a hidden one."""
        name = unread_name(random, self.spelling, self.lookup)
        article = ("an " if name[0] in "aeiou" else "a ") if random.random() < 0.8 else ""
        return self._named(random, article + name, clips)

    def _named(self, random: np.random.Generator, phrase: str, clips: SpanClips) -> Phrase:
        """Return a name in the form of a sentence's span: "the sound of a flute", "a flute", or "flute"."""
        article = re.match(r"(?:an?|the|some) ", phrase)
        bare = article.end() if article else 0
        chance = random.random()
        if chance < 0.6:
            lead = "the sound of "
            starts = (4, len(lead), len(lead) + bare)
            return Phrase(lead + phrase, int(starts[random.choice(3, p=(0.4, 0.3, 0.3))]), clips)
        if chance < 0.85:
            return Phrase(phrase, int(random.choice((0, bare))), clips)
        return Phrase(phrase[bare:], 0, clips)

    def _example(self, template: str, phrases: dict[str, Phrase], answer: str, words: tuple[str, str]) -> Example:
        text, places = compose(template, phrases)
        order = sorted(places, key=lambda name: places[name])
        clips = [phrases[name].clips for name in order]
        return self.spelling.example(text, answer, [places[name] for name in order], clips, words)

    # --- single sounds ------------------------------------------------------------------------------------------------

    def extreme(self, random: np.random.Generator) -> Example | None:
        """Return a sentence that says of one sound that it measures much or little; None where none is found soon."""
        attribute = self._draw([a for a in self.attributes if a.extremes is not None], random)
        assert attribute.extremes is not None
        own = self.values[attribute.name][list(self.kind_of)]
        low, high = np.nanquantile(own, (0.4, 0.6))
        for _ in range(ATTEMPTS):
            kind = self.kinds[random.integers(len(self.kinds))]
            of_clip = random.random() < 0.4
            index = kind.clips[random.integers(len(kind.clips))]
            value = self.values[attribute.name][index] if of_clip else kind.measured.get(attribute.name, math.nan)
            if not (value < low or value > high):
                continue
            if of_clip:
                phrase = self._unread_phrases(random, [given_clip(index, GIVEN)] * 2)[0]
            elif attribute.weight == max(a.weight for a in self.attributes):
                phrase = self._phrases(random, attribute, kind, kind)[0]
            else:
                phrase = self._made_up(random, self.lookup([kind.phrase])[0])
            much, little = attribute.extremes.words
            template = attribute.extremes.templates[random.integers(len(attribute.extremes.templates))]
            return self._example(template, {"x": phrase}, much if value > high else little, (much, little))
        return None

    # --- naming -------------------------------------------------------------------------------------------------------

    def naming(self, random: np.random.Generator) -> Example:
        """Return a sentence whose mask is the name of a clip, or of the clips of a kind."""
        weights = np.array([len(kind.clips) ** 0.5 for kind in self.kinds])
        kind = self.kinds[random.choice(len(weights), p=weights / weights.sum())]
        clips = given_clip(kind.clips[random.integers(len(kind.clips))], GIVEN)
        if random.random() < 0.2:
            clips = self.lookup([kind.phrase])[0]
        template, words = NAMING[random.integers(len(NAMING))]
        text = template.format(a=kind.article)
        word = words[random.integers(len(words))]
        at = text.index(word)
        return self.spelling.example(text, words_of(kind.label), [(at, at + len(word))], [clips])


def compose(template: str, phrases: dict[str, Phrase]) -> tuple[str, dict[str, Offsets]]:
    """Put phrases into a template; spans go from each phrase's start to its end.

    >>> compose("{y} is [MASK] than {x}.", {"x": Phrase("a flute", 2, NOTHING), "y": Phrase("the tuba", 0, NOTHING)})
    ('The tuba is [MASK] than a flute.', {'y': (0, 8), 'x': (26, 31)})
    """
    text, places = "", {}
    for piece in re.split(r"(\{\w+\})", template):
        name = piece[1:-1]
        if piece.startswith("{") and name in phrases:
            phrase = phrases[name]
            places[name] = (len(text) + phrase.start, len(text) + len(phrase.text))
            piece = phrase.text
        text += piece
    return text[:1].upper() + text[1:], places


def _word_start(text: str, random: np.random.Generator) -> int:
    """Return where one of the words of a text begins."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    return int(starts[random.integers(len(starts))])
