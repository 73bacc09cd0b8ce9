"""Which answers are animals: a word list, what a person has decided, and a sheet for what is undecided."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from audiobert.artefacts import write_text
from audiobert.construct.rules import BrokenRuleError
from audiobert.errors import InputError

# A first word that makes an animal's name mean something else.
_NOT_ALIVE = frozenset(
    {
        "toy",
        "stuffed",
        "teddy",
        "robot",
        "robotic",
        "cartoon",
        "zombie",
        "undead",
        "fake",
        "imitation",
        "mechanical",
        "sea-monster",
    }
)
_IRREGULAR_PLURALS = {
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "calves": "calf",
    "dormice": "dormouse",
    "lice": "louse",
}
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
    """The singular of an animal's name by the regular rules; a name that is in the word list stays as it is."""
    animals, _ = _words()
    if word in animals:
        return word
    *first, last = word.split() or [""]
    if last in _IRREGULAR_PLURALS:
        return " ".join([*first, _IRREGULAR_PLURALS[last]])
    for ending, replacement in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            candidate = word[: -len(ending)] + replacement
            if candidate in animals or candidate.split()[-1] in animals:
                return candidate
    return word


def is_animal(label: str) -> bool | None:
    """True for an animal (by its last word: a mourning dove is a dove), False for what is none, None when unknown.

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
    """Decides about answers; remembers those that nobody has decided about.

    Parameters
    ----------
    decisions
        A CSV with the columns `label` and `animal` (yes or no), as `write_undecided` makes it and a person fills it in.

    Raises
    ------
    InputError
        When the file is not of this form.
    """

    def __init__(self, decisions: str | Path | None = None) -> None:
        self.decided: dict[str, bool] = _read_decisions(Path(decisions)) if decisions else {}
        self.undecided: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def check(self, label: str, sentence: str) -> str:
        """The answer in its written form: lower case, singular.

        Raises
        ------
        BrokenRuleError
            `answer-not-an-animal` for a known other thing, `answer-undecided` for one that a person must look at.
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
        """Write the sheet of undecided answers, most frequent first, and those decided before."""
        sheet = io.StringIO()
        writer = csv.writer(sheet, lineterminator="\n")
        writer.writerow(["label", "animal", "count", "example"])
        for label, verdict in sorted(self.decided.items()):
            writer.writerow([label, "yes" if verdict else "no", "", ""])
        for label, count in sorted(self.undecided.items(), key=lambda item: (-item[1], item[0])):
            writer.writerow([label, "", count, self._examples[label]])
        write_text(path, sheet.getvalue())


def _read_decisions(path: Path) -> dict[str, bool]:
    if not path.is_file():
        raise InputError(f"no file {path}: animal.labels wants a CSV with the columns label and animal (yes or no)")
    rows: Iterable[Mapping[str, str]] = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    decided = {}
    for number, row in enumerate(rows, start=2):
        if "label" not in row or "animal" not in row:
            raise InputError(f"{path} has the columns {', '.join(row)}; label and animal are wanted")
        said = (row["animal"] or "").strip().lower()
        if not said:
            continue
        if said not in _DECISIONS:
            raise InputError(f"{path}, line {number}: '{said}' is neither yes nor no")
        decided[" ".join(row["label"].lower().split())] = _DECISIONS[said]
    return decided
