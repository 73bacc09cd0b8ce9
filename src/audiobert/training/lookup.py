"""What is known of every span that training needs, found once with the model's own `Retriever`; and the controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from audiobert.auditorybench.made_up import made_up_name
from audiobert.bank import AudioBank
from audiobert.retrieve import Retriever
from audiobert.training.batches import NOTHING, SpanClips

MADE_UP = 3000  # made-up names that training draws from


class Lookup:
    """Clips by the text of a span; row numbers of the bank are numbers of training clips.

    Parameters
    ----------
    allowed : np.ndarray
        `(clips,)` bool, which clips may be found.

    Attributes
    ----------
    queries
        `(queries, text_dim)` sentence vectors, which `SpanClips.query` numbers.
    """

    def __init__(self, retriever: Retriever, bank: AudioBank, allowed: np.ndarray, seed: int = 0) -> None:
        self._retriever, self._bank, self._allowed = retriever, bank, allowed
        random = np.random.default_rng((seed, 11))
        self.made_up = sorted({made_up_name(random) for _ in range(MADE_UP)})
        self._numbers = {name: number for number, name in enumerate(self.made_up)}
        self.queries = retriever.embed([retriever.query(name) for name in self.made_up]).sentence
        self._found: dict[str, SpanClips] = {}

    def prepare(self, texts: Iterable[str], allowed: np.ndarray | None = None) -> list[SpanClips]:
        """Look texts up, all at once; with `allowed` among other clips, which is not remembered.

        Returns
        -------
        list of SpanClips
            In the order of the sorted distinct texts that are new, or of all distinct texts with `allowed`.
        """
        new = sorted({text for text in texts if allowed is not None or text not in self._found})
        if not new:
            return []
        vectors = self._retriever.embed([self._retriever.query(text) for text in new])
        first = len(self.queries)
        self.queries = np.concatenate([self.queries, vectors.sentence])
        mask = self._allowed if allowed is None else allowed
        scores, rows = self._retriever.rows(self._bank, vectors, self._retriever.settings.clips, mask=mask)
        found = [
            SpanClips(own_rows[own_rows >= 0], own_scores[own_rows >= 0].astype(np.float32), first + number)
            for number, (own_scores, own_rows) in enumerate(zip(scores, rows, strict=True))
        ]
        if allowed is None:
            self._found |= dict(zip(new, found, strict=True))
        return found

    def __call__(self, texts: Sequence[str]) -> list[SpanClips]:
        """Return what is known of each text."""
        self.prepare(texts)
        return [self._found[text] for text in texts]

    def number_of_made_up(self, name: str) -> int:
        """Return the number of the sentence vector of a made-up name."""
        return self._numbers[name]


class OtherClips:
    """A control: queries and retrieval scores as they are, with other clips.

    Parameters
    ----------
    kind : str
        `random` clips for every text, or the clips of another text (`shuffled`).
    """

    def __init__(
        self, lookup: Lookup, texts: Iterable[str], allowed: np.ndarray, kind: Literal["random", "shuffled"], seed: int
    ) -> None:
        names = sorted(set(texts))
        found = dict(zip(names, lookup(names), strict=True))
        random = np.random.default_rng(seed)
        order = random.permutation(len(names))
        choices = np.flatnonzero(allowed)
        self._found: dict[str, SpanClips] = {}
        for place, name in enumerate(names):
            own = found[name]
            if kind == "shuffled":
                rows = found[names[order[place]]].rows
            else:
                rows = random.choice(choices, size=min(len(own.rows), len(choices)), replace=False)
            count = min(len(rows), len(own.scores))
            self._found[name] = SpanClips(rows[:count], own.scores[:count], own.query)

    def __call__(self, texts: Sequence[str]) -> list[SpanClips]:
        """Return the clips that stand in for those of each text."""
        return [self._found.get(text, NOTHING) for text in texts]
