"""Intervals and tests against values worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from audiobert.auditorybench.stats import holm, mcnemar_exact, mean_and_sd, paired_bootstrap, wilson_interval


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (240, 593), (1, 3), (1735, 3625)])
def test_wilson_is_scipy_s(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_refuses_what_is_no_proportion() -> None:
    for correct, n in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="wanted"):
            wilson_interval(correct, n)


def test_mcnemar_counts_only_the_rows_that_differ() -> None:
    first = [True] * 12 + [False] * 4 + [True] * 50 + [False] * 30
    second = [False] * 12 + [True] * 4 + [True] * 50 + [False] * 30
    test = mcnemar_exact(first, second)
    assert (test.only_first, test.only_second) == (12, 4)
    assert test.p_value == pytest.approx(binomtest(12, 16).pvalue)
    assert mcnemar_exact(first, first).p_value == 1.0
    with pytest.raises(ValueError, match="same rows"):
        mcnemar_exact([True], [True, False])


def test_bootstrap_agrees_with_drawing_rows() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.random(400) < 0.6, generator.random(400) < 0.5
    found = paired_bootstrap(first, second)
    rows = generator.integers(0, 400, size=(4000, 400))
    drawn = (first[rows].mean(axis=1) - second[rows].mean(axis=1)).tolist()
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    assert found == paired_bootstrap(first, second)
    assert paired_bootstrap(first, first).p_value == 1.0
    assert 0 < paired_bootstrap([True] * 50, [False] * 50).p_value < 0.001
    with pytest.raises(ValueError, match="no rows"):
        paired_bootstrap([], [])


def test_holm_is_monotone_and_keeps_the_order() -> None:
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([]) == []


def test_spread_over_seeds() -> None:
    assert mean_and_sd([0.5]) == (0.5, None)
    assert mean_and_sd([0.4, 0.6]) == pytest.approx((0.5, 0.1414213562))
