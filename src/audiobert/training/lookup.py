"""The clips of every span that training needs, found once with the model's own `Retriever`; and the controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from audiobert.bank import AudioBank
from audiobert.retrieve import Retriever
from audiobert.training.batches import NOTHING, SpanClips


class Lookup:
    """Clips by the text of a span; row numbers of the bank are numbers of training clips.

    Parameters
    ----------
    allowed : np.ndarray
        `(clips,)` bool, which clips may be found.
    """

    def __init__(self, retriever: Retriever, bank: AudioBank, allowed: np.ndarray) -> None:
        self._retriever, self._bank, self._allowed = retriever, bank, allowed
        self._found: dict[str, SpanClips] = {}

    def prepare(self, texts: Iterable[str]) -> None:
        """Look up texts that are new, all at once."""
        new = sorted({text for text in texts if text not in self._found})
        if not new:
            return
        settings = self._retriever.settings
        queries = [settings.query.format(span=text) for text in new]
        scores, rows = self._retriever.rows(self._bank, queries, settings.clips, mask=self._allowed)
        for text, own_scores, own_rows in zip(new, scores, rows, strict=True):
            there = own_rows >= 0
            self._found[text] = SpanClips(own_rows[there], own_scores[there].astype(np.float32))

    def __call__(self, texts: Sequence[str]) -> list[SpanClips]:
        """Return the clips of each text."""
        self.prepare(texts)
        return [self._found[text] for text in texts]


class OtherClips:
    """A control: the retrieval scores as they are, with other clips.

    Parameters
    ----------
    kind : str
        `random` clips for every text, or the clips of another text (`shuffled`).
    texts
        All that will be looked up.
    """

    def __init__(
        self, lookup: Lookup, texts: Iterable[str], allowed: np.ndarray, kind: Literal["random", "shuffled"], seed: int
    ) -> None:
        names = sorted(set(texts))
        found = dict(zip(names, lookup(names), strict=True))
        random = np.random.default_rng(seed)
        order = random.permutation(len(names))
        choices = np.flatnonzero(allowed)
        self._lookup = lookup
        self._found: dict[str, SpanClips] = {}
        for place, name in enumerate(names):
            scores = found[name].scores
            if kind == "shuffled":
                rows = found[names[order[place]]].rows
            else:
                rows = random.choice(choices, size=min(len(scores), len(choices)), replace=False)
            count = min(len(rows), len(scores))
            self._found[name] = SpanClips(rows[:count], scores[:count])

    def __call__(self, texts: Sequence[str]) -> list[SpanClips]:
        return [self._found.get(text, NOTHING) for text in texts]
