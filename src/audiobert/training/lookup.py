"""Retrieve the clips of every span that training needs, once, with the model's own `Retriever`; and the controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from audiobert.auditorybench.made_up import made_up_name
from audiobert.bank import AudioBank
from audiobert.relatives import nearest_names
from audiobert.retrieve import Retriever
from audiobert.training.batches import NOTHING, SpanClips, TrainingNames

MADE_UP = 3000  # made-up names that training draws from
_SPARE = 1.5  # names that are kept per name wanted, because a batch leaves some out


class Lookup:
    """Clips by the text of a span, of those `allowed` `(clips,)`; the rows of the bank are the training clips."""

    def __init__(
        self, retriever: Retriever, bank: AudioBank, allowed: np.ndarray, seed: int = 0, relatives_dropout: float = 0.0
    ) -> None:
        self._retriever, self._bank, self._allowed = retriever, bank, allowed
        random = np.random.default_rng((seed, 11))
        self.made_up = sorted({made_up_name(random) for _ in range(MADE_UP)})
        self.names = None if not retriever.settings.relatives else _training_names(bank, allowed, relatives_dropout)
        self._found: dict[str, SpanClips] = {}

    def prepare(self, texts: Iterable[str], allowed: np.ndarray | None = None) -> list[SpanClips]:
        """Look texts up, all at once; with `allowed` among other clips, which is not remembered.

        Return what is found in the order of the sorted distinct texts that are new, or of all of them with `allowed`.
        """
        new = sorted({text for text in texts if allowed is not None or text not in self._found})
        if not new:
            return []
        vectors = self._retriever.embed([self._retriever.query(text) for text in new])
        mask = self._allowed if allowed is None else allowed
        scores, rows = self._retriever.rows(self._bank, vectors, self._retriever.settings.clips, mask=mask)
        count = round(_SPARE * self._retriever.settings.relatives)
        names, cosines = nearest_names(self._bank, vectors.sentence, count, mask)
        found = [
            SpanClips(own_rows[own_rows >= 0], own_scores[own_rows >= 0].astype(np.float32), *near)
            for own_scores, own_rows, *near in zip(scores, rows, names, cosines, strict=True)
        ]
        if allowed is None:
            self._found |= dict(zip(new, found, strict=True))
        return found

    def __call__(self, texts: Sequence[str]) -> list[SpanClips]:
        """Return what is known of each text."""
        self.prepare(texts)
        return [self._found[text] for text in texts]


def _training_names(bank: AudioBank, allowed: np.ndarray, dropout: float) -> TrainingNames | None:
    if bank.name_vectors is None:
        return None
    clips, columns = ((bank.name_rows >= 0) & allowed[:, None]).nonzero()
    labels = np.unique([str(row.get("label") or "") for row in bank.rows()], return_inverse=True)[1]
    groups = np.zeros(len(bank.names), dtype=np.int64)
    names = bank.name_rows[clips, columns].astype(np.int64)
    groups[names] = labels[clips]
    return TrainingNames(np.asarray(bank.name_vectors, np.float32), groups, np.stack([names, clips], axis=1), dropout)


class OtherClips:
    """A control: scores as they are, with `random` clips and relatives, or those of another text (`shuffled`)."""

    def __init__(
        self, lookup: Lookup, texts: Iterable[str], allowed: np.ndarray, kind: Literal["random", "shuffled"], seed: int
    ) -> None:
        names = sorted(set(texts))
        found = dict(zip(names, lookup(names), strict=True))
        random = np.random.default_rng(seed)
        order = random.permutation(len(names))
        choices = np.flatnonzero(allowed)
        known = np.zeros(0, np.int64) if lookup.names is None else np.unique(lookup.names.of_clips[:, 0])
        self._found: dict[str, SpanClips] = {}
        for place, name in enumerate(names):
            own, other = found[name], found[names[order[place]]]
            if kind == "random":
                rows = random.choice(choices, size=min(len(own.rows), len(choices)), replace=False)
                other = SpanClips(rows, own.scores, random.permutation(known)[: len(own.names)], own.cosines)
            count, near = min(len(other.rows), len(own.scores)), min(len(other.names), len(own.cosines))
            self._found[name] = SpanClips(
                other.rows[:count], own.scores[:count], other.names[:near], own.cosines[:near]
            )

    def __call__(self, texts: Sequence[str]) -> list[SpanClips]:
        """Return the clips that stand in for those of each text."""
        return [self._found.get(text, NOTHING) for text in texts]
