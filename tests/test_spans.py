import numpy as np

from audiobert.spans import spans_of_words, token_labels


def test_tokens_inside_a_span_are_labelled():
    offsets = [(0, 0), (0, 3), (4, 6), (6, 9), (0, 0)]
    assert token_labels(offsets, [(4, 9)]).tolist() == [0, 0, 1, 1, 0]
    assert token_labels(offsets, []).tolist() == [0] * 5


def test_words_not_pieces_make_spans():
    text = "a croaking frog"
    offsets = [(0, 0), (0, 1), (2, 6), (6, 10), (11, 15), (0, 0)]
    words = [None, 0, 1, 1, 2, None]
    spans = spans_of_words(text, offsets, words, np.array([0.0, 0.1, 0.9, 0.4, 0.2, 0.0]))
    assert [(s.text, s.start, s.end) for s in spans] == [("croaking", 2, 10)]
    assert abs(spans[0].score - 0.65) < 1e-6


def test_neighbouring_words_join_and_distant_ones_do_not():
    text = "moo moo and baa"
    offsets = [(0, 3), (4, 7), (8, 11), (12, 15)]
    spans = spans_of_words(text, offsets, [0, 1, 2, 3], np.array([0.9, 0.8, 0.1, 0.7]))
    assert [s.text for s in spans] == ["moo moo", "baa"]


def test_punctuation_alone_is_no_span():
    assert spans_of_words("!", [(0, 1)], [0], np.array([0.99])) == []
