"""The search through 8-bit codes gives what scoring everything in float32 gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import audiobert.bank.audio_bank as audio_bank
from audiobert.bank import AudioBank
from audiobert.bank.codes import Codes, codes_are_fast
from audiobert.bank.search import exact_search, tuning_queries
from bank_fakes import clustered, synthetic_bank

pytestmark = pytest.mark.skipif(not codes_are_fast(), reason="this processor has no exact 8-bit products")

CLIPS = 5_003  # the last group of rows is not full


def assert_same(vectors: np.ndarray, queries: np.ndarray, top_k: int, mask: np.ndarray | None = None) -> None:
    """The scores of every place are equal, and the rows have these scores: only rows that tie may differ."""
    wanted, _ = exact_search(vectors, queries, top_k, mask)
    scores, rows = Codes(vectors).search(queries, top_k, mask)
    assert scores.dtype == np.float32 and rows.dtype == np.int64 and scores.shape == rows.shape == wanted.shape
    scale = np.abs(wanted).max() or 1.0
    np.testing.assert_allclose(scores, wanted, atol=2e-6 * scale)
    products = np.einsum("qkd,qd->qk", vectors[rows].astype(np.float64), queries.astype(np.float64))
    np.testing.assert_allclose(scores, products, atol=2e-6 * scale)
    assert all(len(set(row)) == top_k for row in rows.tolist())
    assert mask is None or mask[rows].all()


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(CLIPS, 48)


@pytest.mark.parametrize(("queries", "top_k"), [(1, 10), (7, 1), (300, 10), (3, 4_000), (2, CLIPS)])
def test_the_nearest_are_those_of_float32(vectors: np.ndarray, queries: int, top_k: int) -> None:
    assert_same(vectors, tuning_queries(vectors, queries), top_k)


def test_scores_that_differ_by_less_than_a_step_of_the_codes_are_told_apart() -> None:
    random = np.random.default_rng(0)
    one = random.standard_normal(48)
    near = (one + 1e-3 * random.standard_normal((2_000, 48))).astype(np.float16)
    assert_same(near, random.standard_normal((5, 48)).astype(np.float32), 10)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: np.vstack([v, v, v]),  # every vector three times
        lambda v: v * np.geomspace(1e-3, 30, len(v))[:, None],  # of very different lengths
        lambda v: np.where(np.arange(len(v))[:, None] % 3 == 0, 0, v),  # some are zero
        lambda v: np.where(np.arange(v.shape[1]) == 5, 40.0, v),  # one number outweighs all others
        lambda v: -np.abs(v),  # every score is negative
        lambda v: v[:5],  # fewer than a group
    ],
)
def test_vectors_that_are_hard_to_round_change_nothing(vectors: np.ndarray, change: object) -> None:
    changed = change(vectors.astype(np.float32)).astype(np.float16)  # type: ignore[operator]
    assert_same(changed, np.abs(tuning_queries(vectors, 20)), min(10, len(changed)))


@pytest.mark.parametrize("share", [0.5, 0.01])
def test_only_what_the_mask_allows_is_found(vectors: np.ndarray, share: float) -> None:
    mask = np.random.default_rng(0).random(CLIPS) < share
    assert_same(vectors, tuning_queries(vectors, 20), 10, mask)
    assert_same(vectors, tuning_queries(vectors, 2), int(mask.sum()), mask)


def test_a_large_bank_answers_the_same_before_and_after_it_keeps_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_bank, "_IN_MEMORY_BYTES", 0)
    synthetic_bank(tmp_path / "bank", 3_000)
    bank = AudioBank.open(tmp_path / "bank")
    queries = tuning_queries(bank.clap_vectors, 100)
    before_scores, before = bank.search(queries, 10, sources=["s1", "s2"])
    assert "_codes" not in vars(bank)
    after_scores, after = bank.search(queries, 10, sources=["s1", "s2"])
    assert "_codes" in vars(bank)
    np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(after_scores, before_scores, atol=2e-6)
    _, few = bank.search(queries[:3], 10, mask=np.arange(3_000) < 12)
    assert few.max() < 12
