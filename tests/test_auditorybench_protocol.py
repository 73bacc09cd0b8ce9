"""The protocols on a model whose scores are written down: what is right, at which rank, and on what evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from audiobert.auditorybench.interfaces import Evidence, MaskBatch, MaskQuery, Prediction
from audiobert.auditorybench.protocol import choose, protocol_of, score_continuations, score_masked, score_replies
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError


def question(answer: str, candidates: tuple[str, ...] | None = None, kind: str = "cloze") -> Question:
    template = f"say {answer}"
    return Question(
        "task", kind, "dev", 0, "A [MASK].", answer, (), (), candidates, "", template, chat_template="", where="w"
    )


WORDS = {"cat": (1,), "river otter": (2, 3), "dog": (4,), "Cat": (5,), "higher": (0,), "lower": (1,), "lowest": (1, 2)}
EVIDENCE = Evidence(True, [{"start": 0}], ["c1"])


class Written:
    """Logits `(masks, 6)` by the answer; "cat" and "Cat" are pieces 1 and 5."""

    def __init__(self, logits: dict[str, list[list[float]]]) -> None:
        self.logits, self.passes = logits, 0

    def pieces(self, question: Question, word: str) -> tuple[int, ...]:
        del question
        return WORDS[word]

    def variants(self, piece: int) -> tuple[int, ...]:
        return (1, 5) if piece in (1, 5) else (piece,)

    def decode(self, pieces: Sequence[int]) -> str:
        return " ".join(f"#{piece}" for piece in pieces)

    def mask_logits(self, queries: Sequence[MaskQuery]) -> Iterator[MaskBatch]:
        for indices in ([*range(1, len(queries))], [*range(len(queries))][:1]):  # in any order, in any batches
            rows = [row for i in indices for row in self.logits[queries[i].question.answer][: queries[i].read]]
            if indices:
                self.passes += 1
                yield MaskBatch(indices, torch.tensor(rows), [EVIDENCE] * len(indices))


def answers(model: Written, questions: list[Question], protocol: Any = "paper") -> list[Prediction]:
    found = dict(score_masked(model, questions, protocol))
    return [found[index] for index in range(len(questions))]


def test_every_piece_must_be_the_first_choice() -> None:
    right = [[0, 1, 2, 0, 0, 0], [0, 0, 0, 3, 0, 0]]
    third = [[0, 1, 2, 0, 0, 0], [5, 4, 0, 3, 0, 0]]
    model = Written({"River otter": right, "dog": [[0, 0, 0, 0, 1, 1]], "cat": [[2, 1, 0, 0, 0, 0]]})
    otter, dog, cat = answers(model, [question("River otter"), question("dog"), question("cat")])
    assert (cat.text, cat.rank) == ("#0", 2)
    assert (otter.text, otter.correct, otter.rank) == ("River otter", True, 1)  # as the row writes it
    assert (dog.text, dog.correct, dog.rank) == ("dog", True, 1)  # of equal logits the smaller id
    (otter,) = answers(Written({"River otter": third}), [question("River otter")])
    assert (otter.text, otter.correct, otter.rank) == ("#2 #0", False, 3)
    (dog,) = answers(Written({"dog": [[0, 1, 0, 0, 1, 0]]}), [question("dog")])
    assert (dog.text, dog.correct, dog.rank) == ("#1", False, 2)
    assert (dog.auditory, dog.spans, dog.clips) == (True, EVIDENCE.spans, EVIDENCE.clips)


@pytest.mark.parametrize("best", [1, 5])
def test_letter_case_does_not_matter(best: int) -> None:
    (cat,) = answers(Written({"cat": [[0.0] * best + [1.0] + [0.0] * (5 - best)]}), [question("cat")])
    assert cat.correct


def test_pieces_may_have_any_number_of_variants() -> None:
    model = Written({name: [[0, 0, 0, 1, 1, 1]] for name in ("cat", "dog", "higher")})
    model.variants = {1: (1, 5), 4: (4,), 0: (0, 2, 3)}.__getitem__  # type: ignore[method-assign]
    found = answers(model, [question("dog"), question("cat"), question("higher")])
    assert [one.rank for one in found] == [2, 3, 1]


@pytest.mark.parametrize("protocol", ["paper", "candidates"])
def test_candidates_are_ranked_by_log_probability(protocol: str) -> None:
    model = Written({"higher": [[2, 3, 0, 0, 0, 0]], "lower": [[1, 1, 0, 0, 0, 0]]})
    pair = ("higher", "lower")
    first, second = answers(model, [question("higher", pair), question("lower", pair)], protocol)
    assert (first.text, first.correct, first.rank) == ("lower", False, 2)
    logits = torch.tensor([2.0, 3, 0, 0, 0, 0]).log_softmax(0).tolist()
    assert first.scores == pytest.approx({"lower": logits[1], "higher": logits[0]}, abs=1e-5)
    assert (second.text, second.rank) == ("higher", 2)  # of equal scores the first candidate
    assert (first.auditory, first.clips) == (True, ["c1"])
    assert model.passes == 2  # of one batch and one more: both words of a question in one pass
    several = answers(Written({"lowest": [[1.5, 2, 1, 0, 0, 0]]}), [question("lowest", ("lowest", "higher"))], protocol)
    assert several[0].text == "higher"  # two pieces, of which both count


def test_a_causal_model_completes_or_chooses() -> None:
    asked: list[Any] = []
    model = SimpleNamespace(
        log_likelihoods=lambda some, words: asked.append(([one.prompt for one in some], words)) or [[-2.0, -1.0]],
        complete=lambda some: asked.append([one.prompt for one in some]) or ["The Cat.\nIt"] * len(some),
    )
    questions = [question("cat"), question("lower", ("higher", "lower")), question("dog")]
    found = dict(score_continuations(model, questions, "paper"))
    assert [found[i].correct for i in range(3)] == [True, True, False]
    assert [found[i].text for i in range(3)] == ["cat", "lower", "cat"]
    assert asked == [(["say lower"], [[" higher", " lower"]]), ["say cat", "say dog"]]
    asked.clear()
    assert [found.correct for one in questions for _, found in score_continuations(model, [one], "paper")] == [
        True,
        True,
        False,
    ]
    assert asked == [["say cat"], (["say lower"], [[" higher", " lower"]]), ["say dog"]]  # nothing empty


def test_a_causal_model_ranks_many_candidates_question_by_question() -> None:
    words = tuple(f"bird {number}" for number in range(200))
    asked: list[int] = []
    model = SimpleNamespace(log_likelihoods=lambda some, _words: asked.append(len(some)) or [[-1.0] * 200] * len(some))
    found = score_continuations(model, [question("bird 0", words)] * 3, "candidates")
    assert (next(found)[0], asked) == (0, [1])  # progress is seen before the second question is scored
    assert [index for index, _ in found] == [1, 2]


@pytest.mark.parametrize(
    ("reply", "kind", "protocol", "said", "correct"),
    [
        ("B", "multiple-choice", "multiple-choice", "Lower", True),
        ("b) lower", "comparison", "multiple-choice", "Lower", True),
        ("B", "comparison", "multiple-choice", "Lower", True),
        ("A", "multiple-choice", "multiple-choice", "Higher", False),
        ("It is lower.", "multiple-choice", "multiple-choice", "Lower", True),  # no letter, but a word
        ("C", "multiple-choice", "multiple-choice", "c", False),  # there are two options
        ("B", "comparison", "paper", "b", False),  # no letter was asked for
        ("It is lower.", "comparison", "paper", "Lower", True),
        ("Higher than lower", "comparison", "paper", "higher than lower", False),
        ("lower", "comparison", "paper", "Lower", True),
    ],
)
def test_a_reply_names_a_word_or_a_letter(reply: str, kind: str, protocol: Any, said: str, correct: bool) -> None:
    server = SimpleNamespace(replies=lambda _: iter([(0, reply)]))
    ((_, found),) = score_replies(server, [question("lower", ("Higher", "Lower"), kind)], protocol)
    assert (found.text, found.correct) == (said, correct)


def test_a_word_that_is_the_whole_reply_goes_before_one_within_it() -> None:
    assert choose("A lower note.", ["note", "lower note"], lettered=False) == "lower note"
    assert choose("Is it a lower note?", ["note", "lower note"], lettered=False) is None


def test_which_protocol_a_task_has() -> None:
    assert protocol_of("multiple-choice", "paper") == "multiple-choice"
    assert protocol_of("comparison", "candidates") == "candidates"
    server = SimpleNamespace(replies=lambda _: iter([(0, "cat")]))
    ((_, found),) = score_replies(server, [question("Cat")], "paper")
    assert found.correct
    with pytest.raises(InputError, match="cannot rank candidates"):
        next(score_replies(server, [question("Cat")], "candidates"))
