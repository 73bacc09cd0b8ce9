"""Sentences for the word scorer: the rows that ask for a word, and sentences that lack any other word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from audiobert.auditorybench.data import Row
from audiobert.errors import InputError
from audiobert.missing_word import BLANK, Lexicon, blank_sentence
from audiobert.text_features import ScoredTexts, TextFeatures
from audiobert.training.draws import in_passes
from audiobert.training.questions import MASK, OPPOSITE
from audiobert.training.text_files import CAPTIONS, GENERAL_TRAIN, read_captions, read_lines

T = TypeVar("T")

PLAIN_TEXTS = (GENERAL_TRAIN, CAPTIONS)
FEWEST_WORDS, TOO_LONG = 4, 200  # words and characters of a sentence of plain text


@dataclass(frozen=True)
class MissingWord:
    """A sentence with `BLANK` for a word, and the word's number in the lexicon."""

    sentence: str
    word: int


@dataclass
class MissingWordBatch:
    """What each of some sentences is scored by `(sentences, ...)`, and the numbers of their words `(sentences,)`."""

    sentences: TextFeatures
    words: Tensor

    def to(self, device: torch.device | str) -> MissingWordBatch:
        return MissingWordBatch(self.sentences.to(device), self.words.to(device))


def asks_for_word(row: Row) -> bool:
    """Whether a row asks for a word of any kind, and not for one of two."""
    return row.answer.lower() not in OPPOSITE


def answers_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The distinct answers of the rows that ask for a word, in lower case."""
    return tuple(sorted({row.answer.lower() for row in rows if asks_for_word(row)}))


def plain_texts(folder: Path) -> list[Path]:
    """The files of plain text in a folder.

    Raises
    ------
    InputError
        One is not there.
    """
    paths = [folder / name for name in PLAIN_TEXTS]
    for path in paths:
        if not path.exists():
            raise InputError(
                f"{path} does not exist; the word scorer learns from it where no row's answer is asked for"
                " (other_sentences: 0 does without)"
            )
    return paths


def read_sentences(path: Path) -> list[str]:
    """The distinct short lines of a text, or captions of the train part of a CSV, in alphabetical order.

    Raises
    ------
    InputError
        The file is missing, or is no text.
    """
    lines = read_captions(path) if path.name.endswith(".csv.gz") else read_lines(path)
    return sorted({line for line in lines if len(line) < TOO_LONG})


def blank_any_word(sentence: str, lexicon: Lexicon, random: np.random.Generator) -> MissingWord | None:
    """The sentence without one of its words; None for one of few words."""
    words = list(re.finditer(r"[^\W\d_]+", sentence))
    if len(words) < FEWEST_WORDS:
        return None
    word = words[int(random.integers(len(words)))]
    blanked = sentence[: word.start()] + BLANK + sentence[word.end() :]
    return MissingWord(blanked, lexicon.index(word.group()))


class MissingWords:
    """What the word scorer learns from.

    Parameters
    ----------
    rows
        Of all tasks; those that compare lack another word.
    texts : sequence of Path
        Plain texts (`read_sentences`), of which any word is left out.
    sentences : int
        How many of the comparisons, and of each plain text, are taken; which ones is the same in every run.
    """

    def __init__(self, rows: Sequence[Row], lexicon: Lexicon, texts: Sequence[Path], sentences: int) -> None:
        random = np.random.default_rng(0)
        without = [(row, blank_sentence(row.text, MASK)) for row in rows]
        asked = [
            MissingWord(sentence, lexicon.index(row.answer) if asks_for_word(row) else len(lexicon.words))
            for row, sentence in without
            if sentence is not None
        ]
        self.asked = [missing for missing in asked if missing.word < len(lexicon.words)]
        self.others = _some([missing for missing in asked if missing.word == len(lexicon.words)], sentences, random)
        for path in texts:
            chosen = _some(read_sentences(path), sentences, random)
            self.others += [m for line in chosen if (m := blank_any_word(line, lexicon, random))]

    def sentences(self) -> set[str]:
        """All sentences that may be drawn."""
        return {missing.sentence for missing in (*self.asked, *self.others)}

    def draw(self, random: np.random.Generator, count: int, other_share: float) -> list[MissingWord]:
        """So many, a share of them other sentences, each kind in passes in random order."""
        others = round(other_share * count) if self.others else 0
        drawn = [
            given[i]
            for given, share in ((self.asked, count - others), (self.others, others))
            for i in in_passes(len(given), share, random)
        ]
        return [drawn[i] for i in random.permutation(len(drawn))]


def make_missing_word_batch(missing: Sequence[MissingWord], texts: ScoredTexts) -> MissingWordBatch:
    """Sentences as tensors."""
    words = torch.tensor([one.word for one in missing])
    return MissingWordBatch(texts.of_texts([one.sentence for one in missing]), words)


def _some(given: Sequence[T], count: int, random: np.random.Generator) -> list[T]:
    return [given[i] for i in sorted(random.permutation(len(given))[:count])]
