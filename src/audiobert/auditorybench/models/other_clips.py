"""Give spans other clips than those that are retrieved: controls, and a bound on what better retrieval could add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from zlib import crc32

import numpy as np

from audiobert.answers import Hit
from audiobert.auditorybench.questions import Question
from audiobert.retrieve import Found, Retriever

Control = Literal["random", "shuffled"]
_SURE = 0.99  # score of a clip that is known to be the right one


def changed_retriever(retriever: Retriever, changes: Mapping[str, Any]) -> Retriever:
    """Return a retriever of the same banks with other settings."""
    return Retriever(retriever.clap, retriever.banks, retriever.settings.model_copy(update=dict(changes)))


class OtherClips(Retriever):
    """A retriever that gives each text the scores of its own clips, with other clips and relatives.

    Parameters
    ----------
    control : str
        `shuffled`: what is found for another text of the same call, nothing for a text that is alone. `random`: clips
        drawn from the banks, the same ones whenever a text is looked up, and the relatives of another text.
    """

    def __init__(self, retriever: Retriever, control: Control) -> None:
        super().__init__(retriever.clap, retriever.banks, retriever.settings)
        self.control = control

    def find(
        self, texts: Sequence[str], clips: int | None = None, *, exclude: Iterable[str] | None = None, **filters: Any
    ) -> list[Found]:
        """Return what stands in for what is found for the text of each span."""
        own = super().find(texts, clips, exclude=exclude, **filters)
        half = len(own) // 2
        others = [*own[half:], *own[:half]] if half else [Found(())] * len(own)
        found = []
        for text, mine, other in zip(texts, own, others, strict=True):
            hits = self._drawn(text, len(mine.hits), exclude, filters) if self.control == "random" else other.hits
            scored = [replace(hit, score=wanted.score) for hit, wanted in zip(hits, mine.hits, strict=False)]
            found.append(Found(tuple(scored), other.relatives))
        return found

    def _drawn(self, text: str, count: int, exclude: Iterable[str] | None, filters: Mapping[str, Any]) -> list[Hit]:
        random = np.random.default_rng(crc32(text.encode()))
        allowed = [bank.select(exclude=exclude, **filters) for bank in self.banks]
        places = [
            (bank, int(row))
            for bank, mask in zip(self.banks, allowed, strict=True)
            for row in (range(len(bank)) if mask is None else np.flatnonzero(mask))
        ]
        chosen = random.choice(len(places), size=min(count, len(places)), replace=False)
        return [
            Hit(bank.clip(row), 0.0, row, bank.knowledge_vectors[row]) for bank, row in (places[at] for at in chosen)
        ]


class AnswerClips:
    """Clips of the kind that is the answer to a question, where the banks have any."""

    def __init__(self, retriever: Retriever) -> None:
        self._most = retriever.settings.clips
        self._hits: dict[str, list[Hit]] = {}
        for bank in retriever.banks:
            for row, fields in enumerate(bank.rows()):
                hit = Hit(bank.clip(row), _SURE, row, bank.knowledge_vectors[row])
                self._hits.setdefault(str(fields.get("label") or "").casefold(), []).append(hit)

    def __call__(self, question: Question) -> tuple[Hit, ...] | None:
        """Return the clips for each span of a question; None where there are none."""
        hits = self._hits.get(question.answer.casefold())
        return tuple(hits[: self._most]) if hits else None
