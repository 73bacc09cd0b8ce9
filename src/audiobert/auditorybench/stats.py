"""Compute error bars: intervals of one accuracy, and differences of two models over seeds and rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

BOOTSTRAP_SAMPLES = 10_000
_FEW_PATTERNS = 100  # with more, drawing rows is faster than drawing patterns
_CHUNK = 256  # resamples at a time; bounds the memory


def wilson_interval(correct: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927), which stays within [0, 1] and holds for small n.

    Raises
    ------
    ValueError
        If `n` is not positive or `correct` is not within [0, n].

    >>> [round(bound, 3) for bound in wilson_interval(240, 593)]
    [0.366, 0.445]
    """
    if n <= 0 or not 0 <= correct <= n:
        raise ValueError(f"wanted 0 <= correct <= n and n > 0, got correct={correct}, n={n}")
    z = float(norm.ppf(0.5 + confidence / 2))
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Difference:
    """Hold the difference of two means, with its 95% interval and a two-sided p-value."""

    mean: float
    low: float
    high: float
    p_value: float


def two_level_difference(
    first: ArrayLike, second: ArrayLike, *, paired_seeds: bool = True, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> Difference:
    """Compute the difference of two models' mean scores by a bootstrap over training seeds and rows.

    Each resample draws seeds and rows independently, with replacement (Owen 2007, "The pigeonhole bootstrap", which is
    slightly conservative). With one seed per model it is the paired bootstrap over rows. The spread of so few seeds is
    too small by (seeds - 1) / seeds; resampled seed weights are widened by the inverse.

    Parameters
    ----------
    first, second : array_like
        Scores of shape (seeds, rows), or (rows,) for one seed: 0 or 1, or any number, for the same rows.
    paired_seeds : bool
        Draw the same seeds for both where they have equally many: index i is one training of both, or two trainings
        with the same seed. Otherwise the seeds of each are drawn apart.

    Returns
    -------
    Difference
        mean(first) - mean(second); positive where the first is better.

    Raises
    ------
    ValueError
        If the two have different rows, or there are no rows or no seeds.

    Examples
    --------
    >>> found = two_level_difference([[1, 1, 1, 0], [1, 1, 0, 0]], [[0, 0, 1, 0], [1, 0, 0, 0]])
    >>> round(found.mean, 3)
    0.375
    """
    a, b = _scores(first), _scores(second)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"two models on the same rows are wanted, got {a.shape[1]} and {b.shape[1]} rows")
    if a.size == 0 or b.size == 0:
        raise ValueError("no rows to compare")
    random = np.random.default_rng(seed)
    weights_a = _seed_weights(len(a), samples, random)
    same = paired_seeds and len(a) == len(b)
    weights_b = weights_a if same else _seed_weights(len(b), samples, random)
    means = _resampled_means(np.concatenate([a, b]), samples, random)  # (samples, seeds of both)
    differences = (weights_a * means[:, : len(a)]).sum(axis=1) - (weights_b * means[:, len(a) :]).sum(axis=1)
    low, high = np.percentile(differences, [2.5, 97.5])
    tail = min((differences <= 0).mean(), (differences >= 0).mean())
    # One is added to both counts, so that the p-value is never 0 (Davison and Hinkley 1997, section 4.2).
    p_value = min(1.0, 2 * (tail * samples + 1) / (samples + 1))
    return Difference(float(a.mean() - b.mean()), float(low), float(high), float(p_value))


def _scores(scores: ArrayLike) -> np.ndarray:
    """Return scores as float64 of shape (seeds, rows)."""
    array = np.asarray(scores, dtype=np.float64)
    return array[None] if array.ndim == 1 else array


def _resampled_means(scores: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    """Return the mean per seed over resampled rows, shape (samples, seeds), from scores (seeds, rows)."""
    rows = scores.shape[1]
    # Rows with the same scores are exchangeable: a resample is a multinomial draw over the distinct columns.
    patterns, pattern_of, counts = np.unique(scores, axis=1, return_inverse=True, return_counts=True)
    if len(counts) <= _FEW_PATTERNS:
        return random.multinomial(rows, counts / rows, size=samples) @ patterns.T / rows
    means = []
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        drawn = pattern_of.ravel()[random.integers(rows, size=(size, rows))] + len(counts) * np.arange(size)[:, None]
        drawn_counts = np.bincount(drawn.ravel(), minlength=size * len(counts)).reshape(size, len(counts))
        means.append(drawn_counts @ patterns.T / rows)
    return np.concatenate(means)


def _seed_weights(seeds: int, samples: int, random: np.random.Generator) -> np.ndarray:
    """Draw weights of seeds, shape (samples, seeds), each row of sum 1 and widened for few seeds."""
    drawn = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    widening = math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0
    return 1 / seeds + widening * (drawn - 1 / seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several comparisons by Holm's step-down method, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for step, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation (n - 1); the latter is None for a single value."""
    mean = float(np.mean(values))
    return mean, (float(np.std(values, ddof=1)) if len(values) > 1 else None)
