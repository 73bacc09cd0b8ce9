"""Everyday questions about sound: enough of them, and a floor under the share that the shipped model answers right."""

import pytest
from benchmarks.everyday import everyday, read_questions

from audiobert import AudioBert

FLOOR = 0.5  # between the shipped model's share with sound and the plain language model's; see docs/figures.md


def share(model: AudioBert, sound: str) -> float:
    said = [word for words in everyday(model, read_questions(), sound=sound).values() for word in words]
    return sum(word.startswith("+") for word in said) / len(said)


def test_there_are_enough_questions_each_with_a_mask_and_an_answer():
    rows = [row for rows in read_questions().values() for row in rows]
    assert len({text for text, _ in rows}) >= 60
    assert all(text.count("[MASK]") == 1 and answers for text, answers in rows)


@pytest.mark.slow
def test_mini_answers_a_share_that_the_plain_model_does_not():
    mini = AudioBert.from_pretrained("mini")
    assert share(mini, "on") >= FLOOR > share(mini, "off")
