"""Estimate the knowledge of a name that no clip has: kernel ridge regression over the nearest names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiobert.bank import AudioBank
from audiobert.bank.search import exact_search

# Chosen on kinds of the mini bank, each predicted from the others' names and measured pitch.
_POWER, _RIDGE = 3, 0.1
_CLIPS_PER_NAME = 64


@dataclass(frozen=True)
class Relatives:
    """The weighted sum `(hidden_size,)` of the knowledge of the nearest names, and the sum of the weights."""

    vector: np.ndarray
    weight: float


def name_weights(to_names: np.ndarray, among_names: np.ndarray) -> np.ndarray:
    """Compute how much each of some names counts for a query; weights may be negative.

    Parameters
    ----------
    to_names
        `(..., names)` cosines of the query with the names; 0 for a name that must not count.
    among_names
        `(..., names, names)` cosines of the names with each other; 0 in rows and columns that must not count.
    """
    kernel = np.maximum(among_names, 0.0) ** _POWER + _RIDGE * np.eye(among_names.shape[-1])
    return np.linalg.solve(kernel, np.maximum(to_names, 0.0)[..., None] ** _POWER)[..., 0]


def nearest_names(
    bank: AudioBank, sentences: np.ndarray, count: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the names of clips that may be found which are nearest to sentence vectors `(queries, text_dim)`.

    Returns
    -------
    tuple of np.ndarray
        Numbers of names and their cosines, `(queries, count)` or fewer columns; the nearest first.
    """
    if bank.name_vectors is None or not count:
        return np.zeros((len(sentences), 0), np.int64), np.zeros((len(sentences), 0), np.float32)
    mask = None
    if allowed is not None:
        mask = np.zeros(len(bank.names), dtype=bool)
        rows = bank.name_rows[allowed]
        mask[rows[rows >= 0]] = True
    cosines, names = exact_search(bank.name_vectors, sentences, count, mask)
    return names, cosines


def find_relatives(
    banks: list[tuple[AudioBank, np.ndarray | None]], sentences: np.ndarray, count: int
) -> list[Relatives | None]:
    """Return what the nearest names of all banks sound like, per query; None where no clip has a name.

    Parameters
    ----------
    banks
        Each with the `(clips,)` bool of the clips that may be found; None for all.
    sentences
        `(queries, text_dim)` float32, unit norm.
    """
    near = [nearest_names(bank, sentences, count, allowed) for bank, allowed in banks]
    found: list[Relatives | None] = []
    for query in range(len(sentences)):
        candidates = [
            (float(cosine), bank, int(name), allowed)
            for (bank, allowed), (names, cosines) in zip(banks, near, strict=True)
            for name, cosine in zip(names[query], cosines[query], strict=True)
        ]
        chosen = sorted(candidates, key=lambda one: -one[0])[:count]
        if not chosen:
            found.append(None)
            continue
        vectors = np.stack([bank.name_vectors[name] for _, bank, name, _ in chosen]).astype(np.float32)  # type: ignore[index]
        weights = name_weights(np.array([cosine for cosine, *_ in chosen]), vectors @ vectors.T)
        means = np.stack([_mean_knowledge(bank, name, allowed) for _, bank, name, allowed in chosen])
        found.append(Relatives((weights @ means).astype(np.float32), float(weights.sum())))
    return found


def _mean_knowledge(bank: AudioBank, name: int, allowed: np.ndarray | None) -> np.ndarray:
    rows = bank.rows_of_name(name, allowed)[:_CLIPS_PER_NAME]
    return bank.knowledge_vectors[rows].astype(np.float32).mean(axis=0)
