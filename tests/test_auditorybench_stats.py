"""Intervals and tests against values worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from audiobert.auditorybench.stats import holm, mean_and_sd, two_level_difference, wilson_interval


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (240, 593), (1, 3), (1735, 3625), (0, 1), (1, 1)])
def test_wilson_is_scipy_s(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_refuses_what_is_no_proportion() -> None:
    assert wilson_interval(10, 10)[1] == 1.0
    for correct, n in ((0, 0), (1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="wanted"):
            wilson_interval(correct, n)


def test_one_seed_agrees_with_drawing_rows() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.random(400) < 0.6, generator.random(400) < 0.5
    found = two_level_difference(first, second)
    rows = generator.integers(0, 400, size=(10_000, 400))
    drawn = (first[rows].mean(axis=1) - second[rows].mean(axis=1)).tolist()
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert found == two_level_difference(first, second)
    assert two_level_difference(first, first).p_value == 1.0
    assert two_level_difference([True] * 50, [False] * 50, samples=999).p_value == 2 / 1000
    assert two_level_difference([True], [False]).mean == 1.0


def seeds_of(generator: np.random.Generator, seeds: int, rows: int, spread: float) -> np.ndarray:
    """Right or wrong per seed and row; the seeds' accuracies spread around 0.5."""
    accuracies = 0.5 + generator.normal(0.0, spread, size=seeds)
    return generator.random((seeds, rows)) < accuracies[:, None]


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_holds_the_variance_between_trainings(seeds: int) -> None:
    """Two methods without a difference, trainings that spread by four points: the interval holds 0 as it should."""
    generator = np.random.default_rng(0)
    kept = {"all seeds": 0, "one seed": 0}
    for trial in range(60):
        first, second = (seeds_of(generator, seeds, 1000, 0.04) for _ in range(2))
        for name, count in (("all seeds", seeds), ("one seed", 1)):
            found = two_level_difference(first[:count], second[:count], samples=500, seed=trial)
            kept[name] += found.low <= 0 <= found.high
    assert kept["all seeds"] >= 51
    assert kept["one seed"] <= 42  # what a test of rows alone gives


def test_all_seeds_count_not_the_first_alone() -> None:
    right, wrong = np.ones(100), np.zeros(100)
    found = two_level_difference([right, wrong], [wrong, wrong])
    assert found.mean == 0.5
    assert found.p_value > 0.05
    assert two_level_difference([right, right], [wrong, wrong]).p_value < 0.001


def test_a_training_that_stands_out_draws_the_interval_to_its_side() -> None:
    """Of four draws of four trainings, none is the first in 32 per cent, and three or four are it in 5 per cent."""
    found = two_level_difference([[1, 1], [0, 0], [0, 0], [0, 0]], [[0, 0]] * 4)
    widening = (4 / 3) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.25 - 0.25 * widening, 0.25 + 0.5 * widening))


@pytest.mark.parametrize("pairs", [1, 2])
def test_the_spread_of_few_trainings_is_widened(pairs: int) -> None:
    """Half of the trainings are right throughout: all drawn alike has a probability above 2.5 per cent."""
    found = two_level_difference([*[[1, 1]] * pairs, *[[0, 0]] * pairs], [[0, 0]] * 2 * pairs)
    half = 0.5 * (2 * pairs / (2 * pairs - 1)) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_the_same_trainings_are_compared_seed_by_seed() -> None:
    generator = np.random.default_rng(2)
    second = seeds_of(generator, 4, 500, 0.1)
    first = second | (generator.random(second.shape) < 0.06)
    paired = two_level_difference(first, second)
    apart = two_level_difference(first, second, paired_seeds=False)
    assert paired.mean == apart.mean
    assert paired.high - paired.low < 0.7 * (apart.high - apart.low)
    # Another number of seeds can only be drawn apart.
    for seeds in (1, 3):
        found = two_level_difference(first, second[:seeds])
        assert found.mean == pytest.approx(first.mean() - second[:seeds].mean())
        assert found == two_level_difference(first, second[:seeds], paired_seeds=False)


def test_many_patterns_give_what_few_give() -> None:
    """Rows are drawn in another way where their patterns are many; scores that are no 0 or 1 make them many."""
    generator = np.random.default_rng(3)
    first, second = generator.random(300) < 0.6, generator.random(300) < 0.5
    few = two_level_difference(first, second)
    many = two_level_difference(first + generator.normal(0, 1e-9, 300), second)
    assert (many.mean, many.low, many.high) == pytest.approx((few.mean, few.low, few.high), abs=0.01)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        two_level_difference([True], [True, False])
    with pytest.raises(ValueError, match="no rows"):
        two_level_difference([], [])
    for first, second in ((0, 2), (2, 0)):
        with pytest.raises(ValueError, match="no rows"):
            two_level_difference(np.zeros((first, 3)), np.zeros((second, 3)))


def test_holm_is_monotone_and_keeps_the_order() -> None:
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([]) == []
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_spread_over_seeds() -> None:
    assert mean_and_sd([0.5]) == (0.5, None)
    assert mean_and_sd([0.4, 0.6]) == pytest.approx((0.5, 0.1414213562))
