"""Retrieve clips for the text of a span. The only place that decides which clips a span gets."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from audiobert.answers import Hit
from audiobert.arguments import checked_count
from audiobert.bank import AudioBank
from audiobert.bank.names import plain_name
from audiobert.bank.search import exact_search
from audiobert.clap import QueryVectors
from audiobert.clap_hub import Clap
from audiobert.relatives import Relatives, find_relatives
from audiobert.settings import Settings

# Up to so many clips of a bank are scored by name and by sound for every query; of a larger bank only candidates are.
_DENSE_CLIPS = 65_536
_CANDIDATE_CLIPS, _CANDIDATE_NAMES, _CLIPS_PER_NAME = 512, 64, 64
_REMEMBERED_QUERIES = 1_024
_BLOCK_QUERIES = 512


class Calibration(Settings):
    """Logistic functions from two cosines to the probability that a clip is of the kind that a query names.

    Fitted by `train clap` on kinds and clips that were held out. By name or by sound is enough: the odds of both are
    added.

    Attributes
    ----------
    name, sound
        Slope and offset of the log-odds for the cosine of the query with a clip's name, and with its sound.
    same_name
        Added to the log-odds per unit of the name's cosine above 0.9, where query and name say the same.
    """

    name: tuple[float, float] = (13.06, -11.35)
    sound: tuple[float, float] = (9.92, -8.53)
    same_name: float = 25.0

    def by_name(self, cosines: np.ndarray) -> np.ndarray:
        """Return log-odds of the cosines of query and names."""
        return _line(self.name, cosines) + self.same_name * np.maximum(cosines - 0.9, 0.0)

    def by_sound(self, cosines: np.ndarray) -> np.ndarray:
        """Return log-odds of the cosines of query and clips."""
        return _line(self.sound, cosines)


class RetrievalSettings(Settings):
    """Settings of which clips a span gets.

    Attributes
    ----------
    by
        `sound`: cosine of CLAP vectors (the paper). `caption`: cosine of the query's sentence vector with that of what
        a clip is known by (caption, label, title or file name). `both`: the two joined.
    clips
        Clips per span.
    relatives
        Nearest names whose clips, joined by regression, estimate the knowledge of a span that no clip fits; 0 for none.
    query
        What is looked up, with `{span}` for the words of the span.
    calibration
        Turns cosines into probabilities for `caption` and `both`; `sound` keeps the cosine.
    """

    by: Literal["sound", "caption", "both"] = "sound"
    clips: int = 1
    relatives: int = 0
    query: str = "{span}"
    calibration: Calibration = Calibration()


@dataclass(frozen=True)
class Found:
    """The clips of one text, the best first, and what the names nearest to it sound like."""

    hits: tuple[Hit, ...]
    relatives: Relatives | None = None


class Retriever:
    """Search for clips by text in one bank or several.

    Parameters
    ----------
    banks : sequence of AudioBank
        Searched together; the best clips of all of them are found.
    """

    def __init__(self, clap: Clap, banks: Sequence[AudioBank], settings: RetrievalSettings) -> None:
        self.clap, self.banks, self.settings = clap, tuple(banks), settings
        self._remembered: dict[tuple[str, int], Found] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self.banks))

    def find(
        self, texts: Sequence[str], clips: int | None = None, *, exclude: Iterable[str] | None = None, **filters: Any
    ) -> list[Found]:
        """Return what is found for the text of each span.

        Parameters
        ----------
        clips : int, optional
            Clips per text; by default as many as in training.
        exclude, **filters
            As for `AudioBank.search`.
        """
        count = clips or self.settings.clips
        queries = [self.query(text) for text in texts]
        if exclude is not None or filters:
            return self._find(queries, count, exclude=exclude, **filters)
        with self._lock:
            known = {query: self._remembered[query, count] for query in queries if (query, count) in self._remembered}
        new = list(dict.fromkeys(query for query in queries if query not in known))
        if new:
            known |= dict(zip(new, self._find(new, count), strict=True))
            with self._lock:
                self._remembered |= {(query, count): known[query] for query in new}
                for oldest in list(self._remembered)[:-_REMEMBERED_QUERIES]:
                    del self._remembered[oldest]
        return [known[query] for query in queries]

    def query(self, text: str) -> str:
        """Return what the text of a span is looked up with."""
        query = self.settings.query.format(span=text)
        return query if self.settings.by == "sound" else plain_name(query)

    def _find(self, queries: Sequence[str], top_k: int, **filters: Any) -> list[Found]:
        vectors = self.embed(queries)
        hits = self._hits(vectors, top_k, **filters)
        if not self.settings.relatives:
            return [Found(own) for own in hits]
        banks = [(bank, bank.select(**filters)) for bank in self.banks]
        relatives = find_relatives(banks, vectors.sentence, self.settings.relatives)
        return [Found(*both) for both in zip(hits, relatives, strict=True)]

    def embed(self, queries: Sequence[str]) -> QueryVectors:
        """Return the vectors of queries, made in blocks."""
        blocks = [
            self.clap.embed_query(queries[start : start + _BLOCK_QUERIES])
            for start in range(0, len(queries), _BLOCK_QUERIES)
        ]
        return QueryVectors(
            np.concatenate([block.sentence for block in blocks]), np.concatenate([block.clap for block in blocks])
        )

    def search(self, queries: Sequence[str], top_k: int, **filters: Any) -> list[tuple[Hit, ...]]:
        """Return the clips that fit each query best, the best first; none where the filters leave none.

        Raises
        ------
        InputError
            A query is empty, or `top_k` is less than 1.
        """
        top_k = checked_count("top_k", top_k)
        given = list(queries) if self.settings.by == "sound" else [plain_name(query) for query in queries]
        return self._hits(self.embed(given), top_k, **filters)

    def _hits(self, vectors: QueryVectors, top_k: int, **filters: Any) -> list[tuple[Hit, ...]]:
        hits: list[list[Hit]] = [[] for _ in vectors.clap]
        for bank in self.banks:
            scores, rows = self.rows(bank, vectors, top_k, **filters)
            knowledge = np.asarray(bank.knowledge_vectors)  # its rows are views: what is remembered takes no memory
            for own, own_scores, own_rows in zip(hits, scores, rows, strict=True):
                own += [
                    Hit(bank.clip(row), score, row, knowledge[row])
                    for row, score in zip(own_rows.tolist(), own_scores.tolist(), strict=True)
                    if row >= 0
                ]
        if len(self.banks) > 1:
            hits = [sorted(own, key=lambda hit: -hit.score)[:top_k] for own in hits]
        return [tuple(own) for own in hits]

    def rows(
        self, bank: AudioBank, vectors: QueryVectors, top_k: int, *, mask: np.ndarray | None = None, **filters: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and row numbers of one bank's best clips, both `(queries, top_k)`; -1 where there are fewer.

        Parameters
        ----------
        vectors
            Of the queries.
        mask : np.ndarray, optional
            `(clips,)` bool, True where a clip may be found.
        """
        named = None
        if self.settings.by != "sound" and bank.name_vectors is not None and len(bank.name_vectors):
            allowed = _joined(bank.select(**filters), mask)
            named = _NamedClips(self.settings, bank, bank.name_vectors, top_k, allowed)
        large = named is not None and len(bank) > _DENSE_CLIPS
        scores, rows = [], []
        for start in range(0, len(vectors.clap), size := 1 if large else _BLOCK_QUERIES):
            sentence, clap = (block[start : start + size] for block in (vectors.sentence, vectors.clap))
            if named is not None:
                found = named.near(sentence, clap) if large else named.all(sentence, clap)
            else:
                found = bank.search(clap, top_k, mask=mask, **filters)
                if self.settings.by != "sound":
                    found = (expit(self.settings.calibration.by_sound(found[0])), found[1])
            scores.append(_padded(found[0], top_k, -1.0))
            rows.append(_padded(found[1], top_k, -1))
        return np.concatenate(scores), np.concatenate(rows)


@dataclass(frozen=True)
class _NamedClips:
    """Rank the clips of one bank by name, or by name and sound; scores and rows `(queries, up to top_k)`."""

    settings: RetrievalSettings
    bank: AudioBank
    name_vectors: np.ndarray
    top_k: int
    allowed: np.ndarray | None  # (clips,) bool, which clips may be found; None: all

    def all(self, sentence: np.ndarray, clap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rank all clips."""
        rows = np.arange(len(self.bank)) if self.allowed is None else np.flatnonzero(self.allowed)
        return self._best(sentence @ self.name_vectors.astype(np.float32).T, clap, rows)

    def near(self, sentence: np.ndarray, clap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rank the clips that are near the only query by sound or have a name that is near it."""
        bank = self.bank
        _, by_sound = bank.search(clap, max(_CANDIDATE_CLIPS, self.top_k), mask=self.allowed)
        _, nearest_names = exact_search(self.name_vectors, sentence, _CANDIDATE_NAMES)
        named = [bank.rows_of_name(int(name), self.allowed) for name in nearest_names[0]]
        named = [rows[: max(_CLIPS_PER_NAME, self.top_k)] for rows in named]
        rows = np.unique(np.concatenate([by_sound[by_sound >= 0], *named]))
        distinct = np.unique(bank.name_rows[rows])
        chosen = distinct[distinct >= 0]
        names = np.full((1, len(bank.names)), -1.0, dtype=np.float32)
        names[0, chosen] = sentence[0] @ self.name_vectors[chosen].astype(np.float32).T
        return self._best(names, clap, rows)

    def _best(self, names: np.ndarray, clap: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pick the best of these rows per query, descending, equal ones in the order of the bank.

        The score is the probability that a clip is of the kind that the query names; `names` are the cosines
        `(queries, distinct names)`.
        """
        calibration = self.settings.calibration
        name_rows = self.bank.name_rows[rows]  # (rows, names per clip)
        by_name = np.full((len(names), len(rows)), -np.inf)
        for column in name_rows.T:
            known = column >= 0
            cosines = names[:, np.where(known, column, 0)]
            by_name = np.maximum(by_name, np.where(known, calibration.by_name(cosines), -np.inf))
        log_odds = calibration.by_sound(clap @ self.bank.clap_vectors[rows].astype(np.float32).T)
        if self.settings.by == "caption":
            log_odds = np.where((name_rows >= 0).any(axis=1), by_name, log_odds)
        else:
            log_odds = np.logaddexp(by_name, log_odds)
        scores = expit(log_odds)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.top_k]
        return np.take_along_axis(scores, order, axis=1), rows[order]


def _line(slope_and_offset: tuple[float, float], values: np.ndarray) -> np.ndarray:
    return slope_and_offset[0] * values + slope_and_offset[1]


def _joined(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return one & other if one is not None and other is not None else (other if one is None else one)


def _padded(values: np.ndarray, width: int, filler: float) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=filler)
