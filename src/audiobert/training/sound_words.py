"""Find verbs of sound and who makes which sound, by how often words occur in captions of sounds and in plain text."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

RATIO = math.e**3  # of the frequencies in captions and in plain text, from which on a word counts as about sound
LEAST = 15  # occurrences in captions
PLAIN_PER_MILLION = 20.0  # a word that is more frequent in plain text than this has other meanings, too
_WORD = re.compile(r"[a-z]+")
_GLOSS = re.compile(
    r"\b(?:ma[dk](?:es?|ing)|utter|emit|characteristic|with an?|sound of|noise of)\b.*|.*\b(?:sound|noise)s?\b"
)
_AFTER_NOUNS = frozenset("and is are as in with then while on by nearby speaks talks runs passes".split())  # noqa: SIM905


@dataclass(frozen=True)
class SoundVerb:
    """The forms of a verb: bark, barks, barked, barking."""

    base: str
    third: str
    past: str
    ing: str

    @property
    def forms(self) -> tuple[str, str, str, str]:
        """All four forms."""
        return self.base, self.third, self.past, self.ing


@dataclass(frozen=True)
class SoundWords:
    """Verbs of sound with the nouns that captions name as their makers."""

    verbs: tuple[SoundVerb, ...]  # the most frequent in captions first
    makers: dict[str, tuple[str, ...]]  # singular nouns by the base of a verb, each as often as captions name it
    clear: frozenset[str]  # forms that hardly occur in plain text in another meaning

    def names(self) -> list[str]:
        """Return all makers, each once."""
        return sorted({noun for nouns in self.makers.values() for noun in nouns})


def find_sound_words(captions: Sequence[str], plain: Iterable[str], glosses: Sequence[str]) -> SoundWords:
    """Return the verbs whose -ing form is frequent in captions, rare in plain text, and called a sound somewhere.

    Parameters
    ----------
    captions
        Of sounds, such as "a dog barks".
    plain
        Lines of general English.
    glosses
        Dictionary lines such as "bark: the sound made by a dog."; may be empty.
    """
    words = [_WORD.findall(caption.lower()) for caption in captions]
    in_captions = Counter(word for line in words for word in line)
    in_plain = Counter(word for line in plain for word in _WORD.findall(line.lower()))
    sizes = max(1, in_captions.total()), max(1, in_plain.total())
    before_sound = Counter(
        one for line in words for one, two in pairwise(line) if two in ("sound", "sounds", "noise", "noises")
    )
    called, together = _called_sounds(glosses), in_captions + in_plain

    def ratio(word: str) -> float:
        return (in_captions[word] / sizes[0]) / ((in_plain[word] + 1) / sizes[1])

    def per_million(word: str) -> float:
        return 1e6 * in_plain[word] / sizes[1]

    verbs = []
    for ing, count in in_captions.most_common():
        if count < LEAST or not ing.endswith("ing") or len(ing) < 6:
            continue
        verb = _forms(ing, together)
        is_called = before_sound[ing] >= 2 or verb.base in called or ing in called
        if ratio(ing) >= RATIO and is_called and per_million(ing) <= PLAIN_PER_MILLION:
            verbs.append(verb)
    clear = {form for verb in verbs for form in verb.forms if per_million(form) <= PLAIN_PER_MILLION}
    return SoundWords(tuple(verbs), _makers(words, verbs), frozenset(clear))


def _called_sounds(glosses: Sequence[str]) -> set[str]:
    """Return the words that a dictionary explains by a sound: "bark" of "bark: the sound made by a dog."."""
    called: set[str] = set()
    for line in glosses:
        heads, _, gloss = line.partition(": ")
        if re.search(r"\b(?:sound|noise|cry)\b", gloss) and _GLOSS.search(gloss):
            called |= {head for head in heads.split(" or ") if " " not in head}
    return called


def _forms(ing: str, counts: Counter[str]) -> SoundVerb:
    """Return the forms of a regular verb from its -ing form; of several possible spellings the most frequent."""
    stem = ing[:-3]
    if stem.endswith(("ss", "x", "zz", "ch", "sh")):
        return SoundVerb(stem, stem + "es", stem + "ed", ing)
    bases = [stem, stem + "e", *([stem[:-1]] if stem[-1] == stem[-2:-1] else [])]
    base = max(bases, key=lambda one: (counts[one + "s"], counts[one]))
    return SoundVerb(base, base + "s", stem + "ed", ing)


def _makers(captions: Sequence[Sequence[str]], verbs: Sequence[SoundVerb]) -> dict[str, tuple[str, ...]]:
    """Return the nouns N of "a N barks" and "a N is barking", by verb; a noun is seldom followed by another one."""
    verb_of = {form: verb for verb in verbs for form in (verb.third, verb.ing)}
    ends = {*verb_of, *_AFTER_NOUNS}
    total, ended = Counter[str](), Counter[str]()
    for line in captions:
        total.update(line)
        ended.update(one for one, two in pairwise([*line, "and"]) if two in ends)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for line in captions:
        for place, word in enumerate(line):
            if word in verb_of and place >= 2:
                at = place - 2 if line[place - 1] in ("is", "was") else place - 1
                noun, before = line[at], line[at - 1] if at else ""
                if (
                    before in ("a", "an", "the")
                    and noun not in verb_of
                    and len(noun) > 2
                    and ended[noun] >= 0.3 * total[noun]
                ):
                    found[verb_of[word].base][noun] += 1
    return {
        base: tuple(noun for noun, count in nouns.most_common() if count >= 2 for _ in range(min(count, 20)))
        for base, nouns in found.items()
    }
