"""Controls: models that cannot know what anything sounds like, made from the train split alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from audiobert.auditorybench.data import Row
from audiobert.auditorybench.interfaces import Prediction, ProtocolName, ranked_prediction
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError, MissingExtraError

# The inverse strength of the regression's L2 penalty; scikit-learn's default, not selected.
C = 1.0
WORD_NGRAMS = (1, 2)
CHARACTER_NGRAMS = (2, 5)


class Control:
    """Base of the controls: fitted on train rows, task by task; a control ranks the answers of train.

    Parameters
    ----------
    told
        Rank only answers with as many wordpieces as the right one, by the tokenizer of mini. Protocol `paper` tells a
        masked language model this number, by the number of masks.
    """

    kind = "control"

    def __init__(self, name: str, train: Mapping[str, Sequence[Row]], *, told: bool = False) -> None:
        self.name = name
        self.train = train
        self.told = told
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
            scores = self.scores(task, [questions[index] for index in chosen])
            for index, row in zip(chosen, scores, strict=True):
                yield index, self._prediction(questions[index], row, told=self.told and protocol == "paper")

    def scores(self, task: str, questions: Sequence[Question]) -> list[dict[str, float]]:
        """Return, per question, a score for each (case-folded) answer of train."""
        raise NotImplementedError

    def _prediction(self, question: Question, scores: dict[str, float], *, told: bool) -> Prediction:
        words = question.candidates
        if words is None:
            words = tuple(scores)
            if told:
                count = self._pieces(question, question.answer.lower())
                # Where train has no answer of this length, nothing is ruled out; the answer is none of train's anyhow.
                words = tuple(word for word in words if self._pieces(question, word) == count) or words
        lowest = float("-inf")
        ranked = [scores.get(word.casefold(), lowest) for word in words]
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

    def scores(self, task: str, questions: Sequence[Question]) -> list[dict[str, float]]:
        counts = Counter(row.answer.casefold() for row in self.train[task])
        shares = {word: counts[word] / counts.total() for word in sorted(counts)}
        return [shares] * len(questions)


class BagOfWords(Control):
    """Predict by logistic regression (C = 1) on TF-IDF of words 1-2 and characters 2-5 (within words).

    A missing word is predicted from the sentence. A comparison is predicted from the difference of the two spans'
    features, with an intercept; spans are those of the row, as it writes them.
    """

    def __init__(self, name: str, train: Mapping[str, Sequence[Row]], *, told: bool = False) -> None:
        super().__init__(name, train, told=told)
        self._fitted: dict[str, _Fitted] = {}

    def scores(self, task: str, questions: Sequence[Question]) -> list[dict[str, float]]:
        kind = questions[0].kind
        if task not in self._fitted:
            self._fitted[task] = self._fit(self.train[task], kind)
        fitted = self._fitted[task]
        if kind == "comparison":
            inputs = self._difference(fitted.features, [question.spans for question in questions])
        else:
            inputs = fitted.features.transform([question.text for question in questions])
        log_probs = fitted.regression.predict_log_proba((inputs @ fitted.merge).astype(np.float32))
        return [dict(zip(fitted.regression.classes_.tolist(), row.tolist(), strict=True)) for row in log_probs]

    @staticmethod
    def _difference(features: Any, spans: Sequence[Sequence[str]]) -> Any:
        return features.transform([pair[0] for pair in spans]) - features.transform([pair[1] for pair in spans])

    def _fit(self, rows: Sequence[Row], kind: str) -> _Fitted:
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_union
        except ImportError:
            raise MissingExtraError("scikit-learn", "eval") from None
        features = make_union(
            TfidfVectorizer(ngram_range=WORD_NGRAMS),
            TfidfVectorizer(analyzer="char_wb", ngram_range=CHARACTER_NGRAMS),
        )
        answers = [row.answer.casefold() for row in rows]
        if len(set(answers)) < 2:
            raise InputError(f"'{self.name}' needs two different answers in train, there is only '{answers[0]}'")
        if kind == "comparison":
            spans = [row.spans for row in rows]
            features.fit([span for pair in spans for span in pair])
            inputs = self._difference(features, spans)
        else:
            inputs = features.fit_transform([row.text for row in rows])
        merge = merge_proportional_columns(inputs)
        regression = LogisticRegression(C=C, max_iter=1000).fit((inputs @ merge).astype(np.float32), answers)
        return _Fitted(features, merge, regression)


@dataclass(frozen=True)
class _Fitted:
    features: Any
    merge: Any
    regression: Any


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


def make_control(name: str, train: Mapping[str, Sequence[Row]]) -> Control:
    """Make a control by name.

    Raises
    ------
    InputError
        If there is no such control.
    """
    from audiobert.auditorybench.models.text_scorers import TextScorers

    controls: dict[str, Callable[[], Control]] = {
        "control:majority": lambda: Majority(name, train),
        "control:bag-of-words": lambda: BagOfWords(name, train),
        "control:bag-of-words-told": lambda: BagOfWords(name, train, told=True),
        "control:text-scorers": lambda: TextScorers(name, train, told=True),
    }
    if name not in controls:
        raise InputError(f"no control '{name}': there are {', '.join(controls)}")
    return controls[name]()
