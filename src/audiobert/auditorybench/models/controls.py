"""Fit controls: models that are made from the train split alone and cannot use sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from audiobert.auditorybench.data import Row
from audiobert.auditorybench.interfaces import Prediction, ProtocolName, ranked_prediction
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError, needs

# A score per answer of train (case folded), for each question.
Scorer = Callable[[Sequence[Question]], list[dict[str, float]]]
WORD_NGRAMS = (1, 2)
CHARACTER_NGRAMS = (2, 5)


class Control:
    """Base of the controls: fitted on train rows, task by task; a control ranks the answers of train.

    One that is `told` ranks only answers with as many wordpieces as the right one, by the tokenizer of mini. Protocol
    `paper` tells a masked language model this number, by the number of masks.
    """

    kind = "control"

    def __init__(self, name: str, train: Mapping[str, Sequence[Row]], *, told: bool = False) -> None:
        self.name, self.train, self.told = name, train, told
        self._scorers: dict[str, Scorer] = {}
        self.artefacts: dict[str, Any] = {
            "name": name,
            "told_wordpieces": told,
            "train_rows": {task: len(rows) for task, rows in train.items()},
        }

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        """Answer all questions; yield (position, prediction) task by task."""
        for task in dict.fromkeys(question.task for question in questions):
            if not self.train.get(task):
                raise InputError(
                    f"'{self.name}' is made from the train split of '{task}', which the folder lacks: "
                    "leave the control out, or run 'audiobert data download'"
                )
            chosen = [index for index, question in enumerate(questions) if question.task == task]
            if task not in self._scorers:
                self._scorers[task] = self.fit(self.train[task], questions[chosen[0]].kind)
            scores = self._scorers[task]([questions[index] for index in chosen])
            for index, row in zip(chosen, scores, strict=True):
                yield index, self._prediction(questions[index], row, told=self.told and protocol == "paper")

    def fit(self, rows: Sequence[Row], kind: str) -> Scorer:
        """Fit the control to the train rows of a task, whose kind is that of `Task`."""
        raise NotImplementedError

    def _prediction(self, question: Question, scores: dict[str, float], *, told: bool) -> Prediction:
        words = question.candidates
        if words is None:
            words = tuple(scores)
            if told:
                count = self._pieces(question, question.answer.lower())
                # Where train has no answer of this length, nothing is ruled out; the answer is none of train's anyhow.
                words = tuple(word for word in words if self._pieces(question, word) == count) or words
        ranked = [scores.get(word.casefold(), float("-inf")) for word in words]
        return ranked_prediction(replace(question, candidates=words), ranked)

    def _pieces(self, question: Question, word: str) -> int | None:
        try:
            return len(self._vocabulary.pieces(question, word))
        except InputError:  # a word that the tokenizer cannot spell
            return None

    @cached_property
    def _vocabulary(self) -> Any:
        from audiobert.auditorybench.models.masked import Vocabulary
        from audiobert.backbone import TOKENIZER_FILES, find_model, load_tokenizer

        return Vocabulary(load_tokenizer(find_model("mini", files=TOKENIZER_FILES)[0], "mini"), "mini")


class Majority(Control):
    """Predict the most frequent answer of train; of equally frequent ones the first in the alphabet."""

    def fit(self, rows: Sequence[Row], kind: str) -> Scorer:
        """Count the answers."""
        del kind
        counts = Counter(row.answer.casefold() for row in rows)
        shares = {word: counts[word] / counts.total() for word in sorted(counts)}
        return lambda questions: [shares] * len(questions)


class BagOfWords(Control):
    """Predict by `fit_ngrams` with scikit-learn's default strength of the L2 penalty, C = 1; nothing was selected."""

    def fit(self, rows: Sequence[Row], kind: str) -> Scorer:
        """Fit the logistic regression."""
        return fit_ngrams(rows, kind, strength=1.0)


def answers_of(rows: Sequence[Row]) -> list[str]:
    """Return the case-folded answers of rows."""
    answers = [row.answer.casefold() for row in rows]
    if len(set(answers)) < 2:
        raise InputError(f"the control needs two different answers in train, there is only '{answers[0]}'")
    return answers


def fit_ngrams(rows: Sequence[Row], kind: str, *, strength: float, together: bool = False) -> Scorer:
    """Fit logistic regression to TF-IDF of words 1-2 and characters 2-5 (within words).

    A missing word is predicted from the sentence. A comparison is predicted from the difference of the two spans'
    features, with an intercept; spans are those of the row, as it writes them.

    `strength` is C of scikit-learn, the inverse strength of the L2 penalty. With `together`, words and characters
    together have unit norm, instead of each apart.
    """
    with needs("scikit-learn", "eval"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union
        from sklearn.preprocessing import Normalizer
    norm = None if together else "l2"
    words = TfidfVectorizer(ngram_range=WORD_NGRAMS, norm=norm)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=CHARACTER_NGRAMS, norm=norm)
    features = make_pipeline(make_union(words, characters), Normalizer() if together else "passthrough")

    def inputs_of(asked: Sequence[Row] | Sequence[Question]) -> Any:
        if kind == "comparison":
            first, second = ([one.spans[index] for one in asked] for index in (0, 1))
            return features.transform(first) - features.transform(second)
        return features.transform([one.text for one in asked])

    answers = answers_of(rows)
    features.fit([text for row in rows for text in (row.spans if kind == "comparison" else (row.text,))])
    inputs = inputs_of(rows)
    merge = merge_proportional_columns(inputs)
    regression = LogisticRegression(C=strength, max_iter=1000).fit((inputs @ merge).astype(np.float32), answers)

    def score(questions: Sequence[Question]) -> list[dict[str, float]]:
        log_probs = regression.predict_log_proba((inputs_of(questions) @ merge).astype(np.float32))
        return [dict(zip(regression.classes_.tolist(), row, strict=True)) for row in log_probs.tolist()]

    return score


def merge_proportional_columns(inputs: Any) -> Any:
    """Return a matrix (columns, fewer columns) that merges columns which are multiples of each other.

    The character n-grams of a rare word always occur together. A regression with an L2 penalty on the merged column,
    whose length is that of all together, is the same regression (the penalty is invariant under rotation) with a third
    of the weights: 25 thousand columns by 550 answers would take minutes.
    """
    from scipy import sparse

    columns = sparse.csc_matrix(inputs, dtype=np.float64)
    columns.eliminate_zeros()
    columns.sort_indices()
    lengths = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0)).ravel())
    groups: dict[tuple[bytes, bytes], int] = {}
    kept, group_of = [], []
    for column in range(columns.shape[1]):
        start, end = columns.indptr[column], columns.indptr[column + 1]
        if start == end:
            continue
        direction = columns.data[start:end] / lengths[column]
        direction = np.round(direction * np.sign(direction[0]), 6)
        key = columns.indices[start:end].tobytes(), direction.tobytes()
        kept.append(column)
        group_of.append(groups.setdefault(key, len(groups)))
    signs = np.sign(columns.data[columns.indptr[kept]])
    squares = np.bincount(group_of, weights=lengths[kept] ** 2, minlength=len(groups))
    weights = signs * lengths[kept] / np.sqrt(squares[group_of])
    return sparse.csr_matrix((weights, (kept, group_of)), shape=(columns.shape[1], len(groups)))
