"""Give spans other clips than those that are retrieved: controls, and a bound on what better retrieval could add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from zlib import crc32

import numpy as np

from audiobert.answers import Hit
from audiobert.auditorybench.questions import Question
from audiobert.bank import AudioBank
from audiobert.retrieve import Found, Retriever

Control = Literal["random", "shuffled"]
Place = tuple[AudioBank, int]  # a clip: its bank and row
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
        places = self._places(exclude, filters) if self.control == "random" else []
        found = []
        for text, mine, other in zip(texts, own, others, strict=True):
            hits = _drawn(text, len(mine.hits), places) if self.control == "random" else other.hits
            scored = [replace(hit, score=wanted.score) for hit, wanted in zip(hits, mine.hits, strict=False)]
            found.append(Found(tuple(scored), other.relatives))
        return found

    def _places(self, exclude: Iterable[str] | None, filters: Mapping[str, Any]) -> list[Place]:
        """Return all clips that may be found."""
        allowed = [bank.select(exclude=exclude, **filters) for bank in self.banks]
        return [
            (bank, int(row))
            for bank, mask in zip(self.banks, allowed, strict=True)
            for row in (range(len(bank)) if mask is None else np.flatnonzero(mask))
        ]


def _drawn(text: str, count: int, places: Sequence[Place]) -> list[Hit]:
    """Draw clips for a text, the same ones whenever it is looked up."""
    random = np.random.default_rng(crc32(text.encode()))
    chosen = random.choice(len(places), size=min(count, len(places)), replace=False)
    return [_hit(places[at], 0.0) for at in chosen]


def _hit(place: Place, score: float) -> Hit:
    bank, row = place
    return Hit(bank.clip(row), score, row, bank.knowledge_vectors[row])


class AnswerClips:
    """Clips of the kind that is the answer to a question, where the banks have any."""

    def __init__(self, retriever: Retriever) -> None:
        self._most = retriever.settings.clips
        self._places: dict[str, list[Place]] = {}
        for bank in retriever.banks:
            for row, fields in enumerate(bank.rows()):
                self._places.setdefault(str(fields.get("label") or "").casefold(), []).append((bank, row))

    def __call__(self, question: Question) -> tuple[Hit, ...] | None:
        """Return the clips for each span of a question; None where there are none."""
        places = self._places.get(question.answer.casefold())
        return tuple(_hit(place, _SURE) for place in places[: self._most]) if places else None
