"""Scores of spans, and what they learn from."""

import pytest
import torch
from torch import nn

from audiobert.comparison import SpanScorer, comparison_loss
from audiobert.text_features import NGRAMS, pad_ngrams


def test_a_span_without_ngrams_scores_nothing_wide():
    scorer = SpanScorer(4)
    nn.init.ones_(scorer.wide.weight)
    padded = pad_ngrams([[], [3, 5, 9, 11]])
    assert padded.tolist()[0] == [NGRAMS] * 4
    with torch.no_grad():
        scorer.wide.weight[NGRAMS] = 0.0
        wide = scorer.eval()(torch.zeros(2, 4), None, padded)[:, 1]
    assert wide.tolist() == [0.0, pytest.approx(2.0)]  # the sum over the root of the number


def test_it_learns_to_compare_spans_it_has_not_seen_together():
    torch.manual_seed(0)
    scorer, prior = SpanScorer(8, inner_size=16, dropout=0.0), nn.Parameter(torch.zeros(2))
    vectors = torch.randn(40, 8)
    ngrams = pad_ngrams([[row % 10, 100 + row] for row in range(40)])
    true = vectors[:, 0] + torch.arange(40) % 10
    scorer.standardise(vectors)
    pairs = torch.randint(0, 40, (600, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    learnt, held_out = pairs[:400], pairs[400:]
    optimizer = torch.optim.Adam([*(p for p in scorer.parameters() if p.requires_grad), prior], lr=1e-2)
    for _ in range(60):
        scores = scorer(vectors[learnt], None, ngrams[learnt])
        higher = (true[learnt[:, 0]] > true[learnt[:, 1]]).float()
        loss = comparison_loss(scores[:, 0], scores[:, 1], prior, higher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores = scorer.eval()(vectors[held_out], None, ngrams[held_out]).mean(dim=-1)
    right = (scores[:, 0] > scores[:, 1]) == (true[held_out[:, 0]] > true[held_out[:, 1]])
    assert right.float().mean() > 0.85


def test_a_noisy_target_wants_no_certainty():
    sure, doubtful = torch.full((1, 2), 10.0), torch.full((1, 2), 1.0)
    none, prior, higher = torch.zeros(1, 2), torch.zeros(2), torch.ones(1)
    assert comparison_loss(sure, none, prior, higher) < comparison_loss(doubtful, none, prior, higher)
    assert comparison_loss(sure, none, prior, higher, 0.2) > comparison_loss(doubtful, none, prior, higher, 0.2)
