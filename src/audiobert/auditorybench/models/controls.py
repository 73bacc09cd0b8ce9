"""Controls: models that cannot know what anything sounds like, made from the train split alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from audiobert.auditorybench.data import Row
from audiobert.auditorybench.protocol import Prediction, ProtocolName, ranked_prediction
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError, MissingExtraError

CONTROLS = ("control:majority", "control:bag-of-words")
# The inverse strength of the regression's L2 penalty; scikit-learn's default, not selected.
C = 1.0
WORD_NGRAMS = (1, 2)
CHARACTER_NGRAMS = (2, 5)


class Control:
    """What the two controls share: they are fitted on train rows, task by task, and rank the answers they have seen."""

    kind = "control"

    def __init__(self, name: str, train: Mapping[str, Sequence[Row]]) -> None:
        self.name = name
        self.train = train
        self.artefacts: dict[str, Any] = {"name": name, "train_rows": {task: len(rows) for task, rows in train.items()}}

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        del protocol  # a control ranks the train split's answers whatever the protocol
        for task in dict.fromkeys(question.task for question in questions):
            if not self.train.get(task):
                raise InputError(
                    f"'{self.name}' is made from the train split of '{task}', which the folder lacks: "
                    "leave the control out, or run 'audiobert data download'"
                )
            chosen = [index for index, question in enumerate(questions) if question.task == task]
            scores = self.scores(task, [questions[index] for index in chosen])
            for index, row in zip(chosen, scores, strict=True):
                yield index, self._prediction(questions[index], row)

    def scores(self, task: str, questions: Sequence[Question]) -> list[dict[str, float]]:
        """For each question a score for each (case-folded) answer of train."""
        raise NotImplementedError

    @staticmethod
    def _prediction(question: Question, scores: dict[str, float]) -> Prediction:
        from dataclasses import replace

        if question.candidates is None:
            words = tuple(scores)
            return ranked_prediction(replace(question, candidates=words), [scores[word] for word in words])
        lowest = float("-inf")
        return ranked_prediction(question, [scores.get(word.casefold(), lowest) for word in question.candidates])


class Majority(Control):
    """Always the most frequent answer of train ("bird", "higher"); of equally frequent ones the alphabet's first."""

    def scores(self, task: str, questions: Sequence[Question]) -> list[dict[str, float]]:
        counts = Counter(row.answer.casefold() for row in self.train[task])
        shares = {word: counts[word] / counts.total() for word in sorted(counts)}
        return [shares] * len(questions)


class BagOfWords(Control):
    """TF-IDF of words 1-2 and characters 2-5 (within words), and logistic regression with C = 1.

    A missing word is predicted from the sentence. A comparison is predicted from the difference of the two spans'
    features, with an intercept: the span of a row, as the row writes it.
    """

    def __init__(self, name: str, train: Mapping[str, Sequence[Row]]) -> None:
        super().__init__(name, train)
        self._fitted: dict[str, tuple[Any, Any]] = {}

    def scores(self, task: str, questions: Sequence[Question]) -> list[dict[str, float]]:
        kind = questions[0].kind
        if task not in self._fitted:
            self._fitted[task] = self._fit(self.train[task], kind)
        features, regression = self._fitted[task]
        if kind == "comparison":
            inputs = self._difference(features, [question.spans for question in questions])
        else:
            inputs = features.transform([question.text for question in questions])
        log_probs = regression.predict_log_proba(inputs)
        return [dict(zip(regression.classes_.tolist(), row.tolist(), strict=True)) for row in log_probs]

    @staticmethod
    def _difference(features: Any, spans: Sequence[Sequence[str]]) -> Any:
        return features.transform([pair[0] for pair in spans]) - features.transform([pair[1] for pair in spans])

    def _fit(self, rows: Sequence[Row], kind: str) -> tuple[Any, Any]:
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
        return features, LogisticRegression(C=C, max_iter=1000).fit(inputs, answers)


def make_control(name: str, train: Mapping[str, Sequence[Row]]) -> Control:
    """A control by name.

    Raises
    ------
    InputError
        When there is no such control.
    """
    if name == "control:majority":
        return Majority(name, train)
    if name == "control:bag-of-words":
        return BagOfWords(name, train)
    raise InputError(f"no control '{name}': there are {' and '.join(CONTROLS)}")
