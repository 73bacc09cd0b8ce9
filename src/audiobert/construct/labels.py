"""Decide which answers are animals: by a word list, by a person's decisions, with a sheet for the undecided."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.resources import files
from pathlib import Path

from audiobert.construct.rules import IRREGULAR_PLURALS, BrokenRuleError
from audiobert.construct.sheets import read_sheet, write_sheet
from audiobert.errors import InputError

# A first word that makes an animal's name mean something else.
_NOT_ALIVE = frozenset(
    "toy stuffed teddy robot robotic cartoon zombie undead fake imitation mechanical sea-monster".split()  # noqa: SIM905
)
_SINGULARS = {plural: word for word, plural in IRREGULAR_PLURALS.items()}
_DECISIONS = {"yes": True, "y": True, "1": True, "true": True, "no": False, "n": False, "0": False, "false": False}


@cache
def _words() -> tuple[frozenset[str], frozenset[str]]:
    animals: set[str] = set()
    others: set[str] = set()
    text = (files("audiobert.construct") / "animals.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        for word in line.split("#")[0].split(","):
            if word := word.strip():
                (others if word.startswith("-") else animals).add(word.lstrip("-").strip())
    return frozenset(animals), frozenset(others)


def singular(word: str) -> str:
    """Return the singular of an animal's name by the regular rules; a name that is in the word list stays as it is."""
    animals, _ = _words()
    if word in animals:
        return word
    *first, last = word.split() or [""]
    if last in _SINGULARS:
        return " ".join([*first, _SINGULARS[last]])
    for ending, replacement in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            candidate = word[: -len(ending)] + replacement
            if candidate in animals or candidate.split()[-1] in animals:
                return candidate
    return word


def is_animal(label: str) -> bool | None:
    """Return True for an animal (by its last word: a mourning dove is a dove), False for others, None if unknown.

    >>> is_animal("mourning dove"), is_animal("zombie"), is_animal("quux")
    (True, False, None)
    """
    animals, others = _words()
    name = singular(" ".join(label.lower().split()))
    words = name.split()
    if name in others or any(word in _NOT_ALIVE for word in words):
        return False
    if name in animals or (words and singular(words[-1]) in animals):
        return True
    return False if words and words[-1] in others else None


class LabelFilter:
    """Filter of answers, which remembers those that nobody has decided about.

    `decisions` is a CSV with the columns `label` and `animal` (yes or no), made by `write_undecided` and filled in.
    """

    def __init__(self, decisions: str | Path | None = None) -> None:
        self.decided: dict[str, bool] = _read_decisions(Path(decisions)) if decisions else {}
        self.undecided: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def check(self, label: str, sentence: str) -> str:
        """Return the answer in its written form: lower case, singular.

        A known other thing is `answer-not-an-animal`; one that a person must look at is `answer-undecided`.
        """
        name = " ".join(label.lower().split())
        if not name:
            raise BrokenRuleError("answer-not-an-animal", "empty")
        verdict = self.decided.get(name, is_animal(name))
        if verdict is None:
            self.undecided[name] += 1
            self._examples.setdefault(name, sentence)
            raise BrokenRuleError("answer-undecided", name)
        if not verdict:
            raise BrokenRuleError("answer-not-an-animal", name)
        return name if name in self.decided else singular(name)

    def write_undecided(self, path: Path) -> None:
        """Write the sheet of undecided answers, the most frequent first, after those decided before."""
        rows = [{"label": label, "animal": "yes" if yes else "no"} for label, yes in sorted(self.decided.items())]
        for label, count in sorted(self.undecided.items(), key=lambda item: (-item[1], item[0])):
            rows.append({"label": label, "count": str(count), "example": self._examples[label]})
        write_sheet(path, ("label", "animal", "count", "example"), rows)


def _read_decisions(path: Path) -> dict[str, bool]:
    decided = {}
    for where, row in read_sheet(path, ("label", "animal"), "'construct animal' (animal.labels)"):
        verdict = row["animal"].strip().lower()
        if not verdict:
            continue
        if verdict not in _DECISIONS:
            raise InputError(f"{where}: '{verdict}' is neither yes nor no")
        decided[" ".join(row["label"].lower().split())] = _DECISIONS[verdict]
    return decided
