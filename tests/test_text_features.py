"""What texts are scored by."""

import torch

from audiobert.backbone import load_backbone
from audiobert.text_features import NGRAMS, ScoredTexts, sentence_vectors, text_ngrams


def test_ngrams_know_words_pairs_and_letters_but_not_case_or_order_of_rows():
    assert text_ngrams("Double Bass") == text_ngrams("double  bass!")
    shared = set(text_ngrams("contrabass")) & set(text_ngrams("bass clarinet"))
    assert len(shared) >= 5  # "bas", "ass", "ss " ...
    assert set(text_ngrams("bass drum")) != set(text_ngrams("drum bass"))  # pairs of words have an order
    assert text_ngrams("...") == []


def test_texts_are_looked_up_in_any_letter_case_and_missing_spans_are_nothing():
    mini_backbone = load_backbone("mini")
    names = ["a flute", "a tuba", "rain"]
    texts = ScoredTexts(names, sentence_vectors(mini_backbone.model.base_model, mini_backbone.tokenizer, names))
    words = texts.of([["a flute", "A TUBA"], ["Rain"]])
    assert words.sentence_vectors.shape == (2, 2, mini_backbone.model.config.hidden_size)
    assert words.ngrams.shape[:2] == (2, 2)
    torch.testing.assert_close(words.sentence_vectors[0, 0], texts.vectors(["A flute"])[0])
    assert words.sentence_vectors[1, 1].abs().sum() == 0 and (words.ngrams[1, 1] == NGRAMS).all()
    assert texts.of([[]]).ngrams.shape[:2] == (1, 0)
