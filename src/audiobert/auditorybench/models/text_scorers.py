"""The strongest control: text classifiers on sentence vectors of a small language model and on n-grams.

Both methods were selected on dev. A perceptron on the same sentence vectors, with a low-rank score of hashed n-grams
beside it, is not better (docs/benchmark.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from audiobert.auditorybench.align import MASK
from audiobert.auditorybench.data import Row
from audiobert.auditorybench.models.controls import CHARACTER_NGRAMS, WORD_NGRAMS, Control, merge_proportional_columns
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from audiobert.backbone import Backbone

# Scores per question and answer, shape (questions, answers), and the answers.
Scorer = Callable[[Sequence[Question]], np.ndarray]
BLANK = "something"  # takes the place of the mask, which the sentence encoder never saw in training
GAMMA, ALPHA = 1.0, 0.5  # of the kernel, per mean squared distance over dimensions, and of the ridge penalty
C = 3.0
BATCH_SIZE = 128


class TextScorers(Control):
    """Predict a missing word from the sentence vector, and a comparison from the n-grams of its spans.

    A missing word: ridge regression with a Gaussian kernel on sentence vectors (the mean over tokens of the last hidden
    states of mini's backbone), one output per answer of train. A comparison: logistic regression on the difference of
    the spans' TF-IDF vectors, each of unit norm over words 1-2 and characters 2-5 together, with an intercept.
    """

    def __init__(self, name: str, train: Mapping[str, Sequence[Row]], *, told: bool = False) -> None:
        super().__init__(name, train, told=told)
        self._fitted: dict[str, tuple[list[str], Scorer]] = {}
        self._backbone: Backbone | None = None

    def scores(self, task: str, questions: Sequence[Question]) -> list[dict[str, float]]:
        """Return, per question, a score for each (case-folded) answer of train."""
        if task not in self._fitted:
            fit = self._fit_comparison if questions[0].kind == "comparison" else self._fit_word
            answers = sorted({row.answer.casefold() for row in self.train[task]})
            if len(answers) < 2:
                raise InputError(f"'{self.name}' needs two different answers in train, there is only '{answers[0]}'")
            self._fitted[task] = answers, fit(self.train[task], answers)
        answers, scorer = self._fitted[task]
        return [dict(zip(answers, row, strict=True)) for row in scorer(questions).tolist()]

    def _fit_word(self, rows: Sequence[Row], answers: Sequence[str]) -> Scorer:
        try:
            from sklearn.kernel_ridge import KernelRidge
        except ImportError:
            raise MissingExtraError("scikit-learn", "eval") from None
        vectors = self._sentence_vectors([row.text for row in rows])
        center, scale = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-3)
        place = {answer: index for index, answer in enumerate(answers)}
        targets = np.zeros((len(rows), len(answers)))
        targets[range(len(rows)), [place[row.answer.casefold()] for row in rows]] = 1.0
        prior = targets.mean(axis=0)
        ridge = KernelRidge(kernel="rbf", gamma=GAMMA / vectors.shape[1], alpha=ALPHA)
        ridge.fit((vectors - center) / scale, targets - prior)

        def score(questions: Sequence[Question]) -> np.ndarray:
            wanted = self._sentence_vectors([question.text for question in questions])
            return ridge.predict((wanted - center) / scale) + prior

        return score

    def _fit_comparison(self, rows: Sequence[Row], answers: Sequence[str]) -> Scorer:
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline, make_union
            from sklearn.preprocessing import Normalizer
        except ImportError:
            raise MissingExtraError("scikit-learn", "eval") from None
        words = TfidfVectorizer(ngram_range=WORD_NGRAMS, norm=None)
        characters = TfidfVectorizer(analyzer="char_wb", ngram_range=CHARACTER_NGRAMS, norm=None)
        features = make_pipeline(make_union(words, characters), Normalizer())
        features.fit([span for row in rows for span in row.spans])

        def difference(spans: Sequence[Sequence[str]]) -> Any:
            return features.transform([pair[0] for pair in spans]) - features.transform([pair[1] for pair in spans])

        inputs = difference([row.spans for row in rows])
        merge = merge_proportional_columns(inputs)
        regression = LogisticRegression(C=C, max_iter=1000)
        regression.fit(inputs @ merge, [row.answer.casefold() for row in rows])
        assert regression.classes_.tolist() == list(answers)

        def score(questions: Sequence[Question]) -> np.ndarray:
            return regression.predict_log_proba(difference([question.spans for question in questions]) @ merge)

        return score

    def _sentence_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return sentence vectors of texts, shape (texts, hidden_size)."""
        import torch

        from audiobert.backbone import load_backbone

        if self._backbone is None:
            self._backbone = load_backbone("mini")
        encoder, tokenizer = self._backbone.model.base_model.eval(), self._backbone.tokenizer
        texts = [text.replace(MASK, BLANK) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors = np.zeros((len(texts), encoder.config.hidden_size))
        for start in range(0, len(order), BATCH_SIZE):
            part = order[start : start + BATCH_SIZE]
            tokens = tokenizer([texts[index] for index in part], padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                states = encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)  # (texts, tokens, 1)
            vectors[part] = ((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
        return vectors
