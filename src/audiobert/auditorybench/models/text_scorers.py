"""Fit the strongest control: text classifiers on sentence vectors of a small language model and on n-grams.

Both methods and their settings were selected on dev.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from audiobert.auditorybench.align import MASK
from audiobert.auditorybench.data import Row
from audiobert.auditorybench.models.controls import Control, Scorer, answers_of, fit_ngrams
from audiobert.auditorybench.questions import Question
from audiobert.errors import needs

if TYPE_CHECKING:
    from audiobert.backbone import Backbone

BLANK = "something"  # takes the place of the mask, which the sentence encoder never saw in training
GAMMA, ALPHA = 1.0, 0.5  # of the kernel, on the mean squared distance over dimensions, and of the ridge penalty
NGRAM_STRENGTH = 3.0
BATCH_SIZE = 128


class TextScorers(Control):
    """Predict a missing word from the sentence vector, and a comparison from the n-grams of its spans."""

    def fit(self, rows: Sequence[Row], kind: str) -> Scorer:
        """Fit `fit_ngrams` to a comparison, `fit_sentence_vectors` to another task."""
        if kind == "comparison":
            return fit_ngrams(rows, kind, strength=NGRAM_STRENGTH, together=True)
        return fit_sentence_vectors(rows)


def fit_sentence_vectors(rows: Sequence[Row]) -> Scorer:
    """Fit ridge regression with a Gaussian kernel to sentence vectors, one output per answer of train."""
    with needs("scikit-learn", "eval"):
        from sklearn.kernel_ridge import KernelRidge

    from audiobert.backbone import load_backbone

    backbone = load_backbone("mini")
    vectors = sentence_vectors(backbone, [row.text for row in rows])
    center, scale = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-3)
    given = answers_of(rows)
    answers = sorted(set(given))
    targets = np.array([[float(answer == one) for answer in answers] for one in given])  # (rows, answers)
    prior = targets.mean(axis=0)
    ridge = KernelRidge(kernel="rbf", gamma=GAMMA / vectors.shape[1], alpha=ALPHA)
    ridge.fit((vectors - center) / scale, targets - prior)

    def score(questions: Sequence[Question]) -> list[dict[str, float]]:
        asked = sentence_vectors(backbone, [question.text for question in questions])
        predicted = ridge.predict((asked - center) / scale) + prior
        return [dict(zip(answers, row, strict=True)) for row in predicted.tolist()]

    return score


def sentence_vectors(backbone: Backbone, texts: Sequence[str]) -> np.ndarray:
    """Return the mean over tokens of a backbone's last hidden states, shape (texts, hidden_size)."""
    import torch

    encoder, tokenizer = backbone.model.eval().base_model, backbone.tokenizer
    texts = [text.replace(MASK, BLANK) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors = np.zeros((len(texts), backbone.model.config.hidden_size))
    for start in range(0, len(order), BATCH_SIZE):
        part = order[start : start + BATCH_SIZE]
        tokens = tokenizer([texts[index] for index in part], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            states = encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)  # (texts, tokens, 1)
        vectors[part] = ((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    return vectors
