"""Honest error bars: intervals for one accuracy, tests for two models on the same rows, spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

BOOTSTRAP_SAMPLES = 10_000


def wilson_interval(correct: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), which stays within [0, 1] and holds for small n.

    Raises
    ------
    ValueError
        When `n` is not positive or `correct` is not within [0, n].

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
class McNemar:
    """McNemar's exact test: `only_first` and `only_second` count the rows that just one of the two got right."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar_exact(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Exact two-sided McNemar test of two models on the same rows (binomial on the discordant rows).

    Raises
    ------
    ValueError
        When the two have not the same number of rows.
    """
    a, b = _paired(first, second)
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


@dataclass(frozen=True)
class PairedBootstrap:
    """Difference of two accuracies on the same rows, with its 95% interval and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    first: Sequence[bool], second: Sequence[bool], *, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> PairedBootstrap:
    """Bootstrap over rows of accuracy(first) - accuracy(second).

    Each row contributes -1, 0 or +1, so a resample is a multinomial draw over these three; this is the same
    distribution as drawing rows with replacement, and takes milliseconds.

    Raises
    ------
    ValueError
        When the two have not the same number of rows, or there are none.
    """
    a, b = _paired(first, second)
    n = len(a)
    if n == 0:
        raise ValueError("no rows to compare")
    difference = a.astype(int) - b.astype(int)
    counts = np.array([(difference == value).sum() for value in (-1, 0, 1)])
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=samples)  # (samples, 3)
    means = (draws[:, 2] - draws[:, 0]) / n
    low, high = np.percentile(means, [2.5, 97.5])
    tail = min((means <= 0).mean(), (means >= 0).mean())
    # One is added to both counts, so that the p-value is never 0 (Davison and Hinkley 1997, section 4.2).
    p_value = min(1.0, 2 * (tail * samples + 1) / (samples + 1))
    return PairedBootstrap(float(difference.mean()), float(low), float(high), float(p_value))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p-values for several comparisons, in the order given.

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
    """Mean and sample standard deviation (n - 1); the latter is None for a single value."""
    mean = float(np.mean(values))
    return mean, (float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _paired(first: Sequence[bool], second: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    if len(first) != len(second):
        raise ValueError(f"two models on the same rows are wanted, got {len(first)} and {len(second)} rows")
    return np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
