"""Check the rules that a question must satisfy; a broken one raises its name, which `rejected.jsonl` lists."""

from __future__ import annotations

import re
from collections.abc import Iterable

from audiobert.construct.records import MASK, Rejected

_CATEGORY = re.compile(r"[a-z0-9][a-z0-9 '&.-]{0,40}(/[a-z0-9][a-z0-9 '&.-]{0,40}){0,3}")
_COMPARISON_GIVEN_AWAY = re.compile(r"\b(high(er|est)?|low(er|est)?|deep(er|est)?|shrill(er)?)\b", re.IGNORECASE)


class BrokenRuleError(Exception):
    """An answer breaks a rule; `reason` is the rule's name."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail

    def rejected(self, step: str, item: str, answer: str = "") -> Rejected:
        """Return the record of an item that is left out for this reason."""
        return Rejected(step=step, item=item, reason=self.reason, detail=self.detail, answer=answer)


def check_mask(sentence: str) -> None:
    """Check that the sentence has exactly one [MASK] (`no-mask`, `several-masks`)."""
    masks = sentence.count(MASK)
    if masks == 0:
        raise BrokenRuleError("no-mask", sentence)
    if masks > 1 or re.search(r"\[mask\]", sentence.replace(MASK, ""), re.IGNORECASE):
        raise BrokenRuleError("several-masks", sentence)


def locate_span(sentence: str, span: str) -> tuple[int, int]:
    """Find the span in the sentence, as characters [start, end): as written, else ignoring case.

    Broken rules are `empty-span`, `mask-in-span` and `span-not-in-sentence`.
    """
    span = span.strip()
    if not re.search(r"\w", span):
        raise BrokenRuleError("empty-span", sentence)
    if "[" in span or "]" in span:
        raise BrokenRuleError("mask-in-span", span)
    pattern = r"(?<!\w)" + re.escape(span) + r"(?!\w)"
    found = re.search(pattern, sentence) or re.search(pattern, sentence, re.IGNORECASE)
    if not found:
        raise BrokenRuleError("span-not-in-sentence", f"'{span}' in '{sentence}'")
    return found.span()


def word_forms(word: str) -> set[str]:
    """Return the forms in which a word reveals itself: singular, plural, possessive.

    >>> sorted(word_forms("fly"))
    ['flies', 'fly', "fly's", 'flys']
    """
    forms = {word, f"{word}s", f"{word}'s", f"{word[:-1]}ies" if word.endswith("y") else f"{word}es"}
    if word.endswith("s"):
        forms.add(word[:-1])
    return forms


IRREGULAR_PLURALS = {
    "mouse": "mice", "goose": "geese", "wolf": "wolves", "calf": "calves", "ox": "oxen", "louse": "lice",
    "dormouse": "dormice",
}  # fmt: skip
_REVEALING = IRREGULAR_PLURALS | {"cattle": "cow", "kitten": "cat", "puppy": "dog"}


def check_answer_hidden(sentence: str, answer: str) -> None:
    """Check that neither the answer nor its plural occurs in the sentence (`answer-in-sentence`)."""
    words = set(re.findall(r"[\w']+", sentence.replace(MASK, " ").lower()))
    for word in re.findall(r"[\w']+", answer.lower()):
        if words & {*word_forms(word), _REVEALING.get(word)}:
            raise BrokenRuleError("answer-in-sentence", f"'{answer}' in '{sentence}'")


def check_category(category: str, roots: Iterable[str]) -> str:
    """Return the category in its written form: lower case, no spaces around slashes, a known first part.

    Another one is a `bad-category`.

    >>> check_category(" Animal / Dog/Pomeranian ", ["animal"])
    'animal/dog/pomeranian'
    """
    written = "/".join(" ".join(part.split()) for part in category.lower().strip().strip("/").split("/"))
    if not _CATEGORY.fullmatch(written) or written.split("/")[0] not in set(roots):
        raise BrokenRuleError("bad-category", category)
    return written


def check_comparison(sentence: str, first: tuple[int, int], second: tuple[int, int]) -> None:
    """Check for `first [MASK] ... than second`, with nothing that reveals the answer.

    Broken rules are `overlapping-spans`, `no-comparison` and `answer-in-sentence`.
    """
    if first[0] < second[1] and second[0] < first[1]:
        raise BrokenRuleError("overlapping-spans", sentence)
    mask = sentence.index(MASK)
    between = sentence[mask : second[0]]
    if not (first[1] <= mask < second[0] and re.search(r"\bthan\b", between)):
        raise BrokenRuleError("no-comparison", sentence)
    if found := _COMPARISON_GIVEN_AWAY.search(sentence):
        raise BrokenRuleError("answer-in-sentence", f"'{found[0]}' in '{sentence}'")
