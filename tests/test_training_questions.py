import numpy as np
import pytest

from audiobert.auditorybench.data import Row
from audiobert.backbone import load_backbone
from audiobert.training.clips import TrainingClip
from audiobert.training.draws import by_length, in_passes
from audiobert.training.questions import can_swap, expand_mask, make_question, swap_spans
from audiobert.training.retrieval import Oracle, Retrieved

TEXT = "The sound of a flute typically has a [MASK] pitch than a big drum."
SPANS = [(4, 20), (57, 65)]


@pytest.fixture(scope="module")
def tokenizer():
    return load_backbone("mini").tokenizer


def row(text=TEXT, answer="higher"):
    return Row("pitch", "train", 0, text, answer)


def test_swapping_exchanges_the_spans_and_twice_is_nothing():
    swapped, spans = swap_spans(TEXT, SPANS)
    assert swapped == "The big drum typically has a [MASK] pitch than a sound of a flute."
    assert [swapped[a:b] for a, b in spans] == ["big drum", "sound of a flute"]
    assert swap_spans(swapped, spans) == (TEXT, tuple(SPANS))


def test_a_swapped_question_has_the_other_answer(tokenizer):
    there, back = (make_question(tokenizer, row(), SPANS, swap=swap) for swap in (False, True))
    assert tokenizer.decode(list(there.answer_ids)) == "higher"
    assert tokenizer.decode(list(back.answer_ids)) == "lower"
    assert back.span_texts == there.span_texts[::-1]


def test_what_cannot_be_swapped():
    assert can_swap(row(), SPANS)
    assert not can_swap(row(), SPANS[:1])
    assert not can_swap(row(), [(4, 60), (57, 65)])
    assert not can_swap(row(), [(4, 40), (57, 65)])  # holds the mask
    assert not can_swap(row(answer="dog"), SPANS)


def test_one_mask_a_wordpiece_and_spans_move_along(tokenizer):
    question = make_question(
        tokenizer, Row("animal", "train", 0, "A [MASK] makes a hooting call.", "Tawny owl"), [(17, 29)]
    )
    assert len(question.answer_ids) == question.text.count("[MASK]") > 1
    assert question.span_texts == ("hooting call",)
    assert expand_mask("hoot, says [MASK]", [(0, 4)], "[MASK] [MASK]")[1] == ((0, 4),)


def test_clips_of_a_question_and_their_controls(tokenizer):
    names = ["sound of a flute", "big drum", "rain"]
    found = Retrieved({n: np.array([i, i + 10]) for i, n in enumerate(names)}, {n: np.array([0.9, 0.8]) for n in names})
    question = make_question(tokenizer, row(), SPANS)
    clips, scores = found.of(question, width=3, clips=2)
    assert clips.tolist() == [[0, 10], [1, 11], [0, 0]]
    assert scores[2].tolist() == [0.0, 0.0]
    shuffled = found.shuffled(seed=1)
    assert sorted(v.tolist() for v in shuffled.indices.values()) == sorted(v.tolist() for v in found.indices.values())
    drawn = found.random(seed=0, clip_count=100)
    assert all(len(set(v)) == 2 and max(v) < 100 for v in drawn.indices.values())
    assert drawn.scores is found.scores


def test_the_oracle_answers_each_row_with_clips_of_its_own_animal(tokenizer):
    text = "A [MASK] makes a loud call."
    rows = [Row("animal", "dev", i, text, answer) for i, answer in enumerate(("Dogs", "cat", "heron", "sheep"))]
    clips = [
        TrainingClip(f"{i}.wav", label, label, "", 0, "")
        for i, label in enumerate(("bird", "dog", "dog", "cat", "sheep"))
    ]
    found = Retrieved({"loud call": np.array([0, 4])}, {"loud call": np.array([0.9, 0.8])})
    oracle = Oracle(found, rows, clips, np.array([True, True, True, False, True]), seed=0)
    heard = [oracle.of(make_question(tokenizer, row, [(17, 26)]), width=2, clips=2) for row in rows]
    assert sorted(heard[0][0][0]) == [1, 2]  # "Dogs" are dogs
    assert [own[0].tolist() for own, _ in heard[1:]] == [
        [0, 4],
        [0, 4],
        [4, 4],
    ]  # cat may not be heard, heron is not there
    assert all(own[1].tolist() == [0, 0] for own, _ in heard)
    assert all(scores[0] == pytest.approx([0.9, 0.8]) for _, scores in heard)


def test_a_pass_has_every_row_once_before_any_comes_again():
    random = np.random.default_rng(0)
    drawn = in_passes(5, 13, random)
    assert len(drawn) == 13
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == [0, 1, 2, 3, 4]
    assert len(set(drawn[10:])) == 3
    assert in_passes(0, 4, random) == in_passes(4, 0, random) == []


def test_batches_hold_rows_of_like_length_each_once():
    lengths = list(np.random.default_rng(1).integers(10, 200, 100))
    batches = by_length(range(100), lengths, 16, np.random.default_rng(0), jitter=0.1)
    assert sorted(i for batch in batches for i in batch) == list(range(100))
    assert sorted(len(batch) for batch in batches) == [4, *[16] * 6]
    spread = [np.ptp([lengths[i] for i in batch]) for batch in batches]
    assert np.mean(spread) < 60 < np.ptp(lengths)
    again = by_length(range(100), lengths, 16, np.random.default_rng(1), jitter=0.1)
    assert again != batches
