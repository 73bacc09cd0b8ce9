"""The benchmark's rows, captions and what is looked up for them, as sentences to learn from."""

import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from audiobert.auditorybench.kinds import names_withheld, withheld_clips
from audiobert.injection import InjectionSettings
from audiobert.training.batches import BatchMaker
from audiobert.training.captions import Captions, ClipCaptions
from audiobert.training.draws import by_length
from audiobert.training.lookup import OtherClips
from audiobert.training.rows import RowSettings, TrainRows
from training_toys import MEASURED, TAKES, WordDetector, measured_clips, measured_lookup, spelled, toy_spelling

ROWS = (
    ("flute", "drum", "higher"),
    ("drum", "cat", "lower"),
    ("cow", "tuba", "higher"),  # the tuba is withheld
    ("cat", "cow", "higher"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips, those that may be found, spelling, lookup, and a folder with the rows of a comparison."""
    folder = tmp_path_factory.mktemp("rows")
    clips = measured_clips()
    allowed = ~withheld_clips(clips.labels)
    spelling = toy_spelling(folder / "bert", "sounding", "loudly", "barks", "rain")
    lines = ["sentence,answer,span1,span2"]
    lines += [
        f"The sound of a {a} has a [MASK] pitch than the sound of a {b}.,{answer},sound of a {a},sound of a {b}"
        for a, b, answer in ROWS
    ]
    (folder / "sound_pitch_comparsion_train.csv").write_text("\n".join(lines) + "\n")
    return clips, allowed, spelling, measured_lookup(folder / "bank", clips, allowed), folder


def train_rows(world, keep=lambda _: True, **most):
    return TrainRows(world[4], "pitch", world[2], WordDetector(), keep, **most)


def made(world, rows=None, seed=0, **settings):
    settings = RowSettings(**({"swap_share": 0.0} | settings))
    lookup = world[3]
    return (rows or train_rows(world)).examples(np.random.default_rng(seed), settings, lookup, lookup)


def said(world, examples):
    """The kinds in each text with the answer."""
    return [(*re.findall("|".join(MEASURED), example.text), spelled(world[2], example.answer)) for example in examples]


def label_of_clips(known):
    return {list(MEASURED)[row // TAKES] for row in known.rows}


def label_of_names(world, known):
    """The kinds whose names are near, the nearest first."""
    of = {name: world[0].labels[clip] for name, clip in world[3].names.of_clips}
    return list(dict.fromkeys(of[name] for name in known.names))


def test_rows_come_as_published_with_the_clips_of_their_spans(world):
    examples = made(world)
    assert said(world, examples) == list(ROWS)
    for example, (first, second, _) in zip(examples, ROWS, strict=True):
        assert [example.text[slice(*span)] for span in example.spans] == [
            f"sound of a {first}",
            f"sound of a {second}",
        ]
        assert label_of_clips(example.clips[0]) == {first}
        assert spelled(world[2], [example.opposite]) in {"higher", "lower"} - {spelled(world[2], example.answer)}


def test_rows_turned_round_have_the_other_answer_and_the_clips_change_places(world):
    turned = [(second, first, "lower" if answer == "higher" else "higher") for first, second, answer in ROWS]
    assert said(world, made(world, swap_share=1.0)) == turned
    twins = made(world, twins=True)
    assert said(world, twins[::2]) == list(ROWS)
    assert said(world, twins[1::2]) == turned
    for first, second in zip(twins[::2], twins[1::2], strict=True):
        assert [list(known.rows) for known in first.clips] == [list(known.rows) for known in second.clips][::-1]


def test_a_twin_has_no_clips_where_the_first_one_has_none(world):
    twins = made(world, twins=True, unheard_share=0.5, passes={"pitch": 5})
    heard = []
    for first, second in zip(twins[::2], twins[1::2], strict=True):
        known = {bool(len(known.rows) + len(known.names)) for one in (first, second) for known in one.clips}
        assert len(known) == 1
        heard += known
    assert set(heard) == {True, False}


def test_unread_names_take_the_place_of_the_spans_whose_clips_fit(world):
    examples = made(world, unread_share=1.0, passes={"pitch": 5})
    for example in examples:
        for known, span in zip(example.clips, example.spans, strict=True):
            piece = example.text[slice(*span)]
            fits = known.scores[0] >= 0.7
            assert fits == (not re.search("|".join(MEASURED), piece)), piece
            assert piece.strip() == piece != ""
        assert spelled(world[2], example.answer) in ("higher", "lower")
        assert example.text.count("[MASK]") == 1
        assert example.text.endswith(".")
    fitting = [label_of_clips(known) for example in examples for known in example.clips if known.scores[0] >= 0.7]
    assert {next(iter(labels)) for labels in fitting} == {"flute", "drum", "cow", "cat"}
    read = made(world, unread_share=0.0)
    assert all(re.search("|".join(MEASURED), one.text[slice(*span)]) for one in read for span in one.spans)


def test_passes_say_how_often_rows_come(world):
    assert len(made(world, passes={"pitch": 2.5})) == 10
    assert made(world, passes={"pitch": 0.0}) == []


def test_rows_about_withheld_kinds_are_left_out(world):
    withheld = names_withheld(world[0].labels)
    rows = train_rows(world, keep=lambda question: not withheld(question.spans))
    assert (len(rows), rows.left_out) == (3, 1)
    assert not any("tuba" in text for text in rows.span_texts())
    assert not any("tuba" in example.text for example in made(world, rows, twins=True, passes={"pitch": 3}))


def test_lookup_finds_the_kind_and_never_what_is_not_allowed(world):
    clips, allowed, _, lookup, _ = world
    flute, tuba = lookup(["a flute", "a tuba"])
    assert label_of_clips(flute) == {"flute"}
    assert flute.scores[0] > 0.9 > 0.5 > tuba.scores[0]
    assert allowed[tuba.rows].all()
    assert lookup(["a flute"])[0] is flute
    others = lookup.prepare(["a flute"], allowed & (np.array(clips.labels) != "flute"))[0]
    assert "flute" not in label_of_clips(others)
    assert label_of_names(world, flute)[0] == "flute"
    assert set(label_of_names(world, others)) == {"drum", "cat", "cow"}  # the owl and the tuba are withheld
    assert lookup(["a flute"])[0] is flute  # the other search is not remembered


@pytest.mark.parametrize("kind", ["random", "shuffled"])
def test_controls_keep_the_scores_and_change_clips_and_names(world, kind):
    _, allowed, _, lookup, _ = world
    texts = [f"sound of a {label}" for label in MEASURED if label not in ("owl", "tuba")]
    others = OtherClips(lookup, texts, allowed, kind, seed=0)(texts)
    own = lookup(texts)
    for one, other in zip(own, others, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.cosines, other.cosines)
        assert allowed[other.rows].all()
    assert [list(one.rows) for one in own] != [list(other.rows) for other in others]
    assert [list(one.names) for one in own] != [list(other.names) for other in others]
    assert not len(OtherClips(lookup, texts, allowed, kind, seed=0)(["never looked up"])[0].rows)


def test_frequent_words_of_captions_are_not_asked_for(world):
    texts = [f"The rain barks number{number} times" for number in range(70)]
    captions = Captions(texts, WordDetector("rain"), world[2])
    assert len(captions.captions) == 0  # no word but digits is rarer
    texts += [f"The rain barks {one}{other} times" for one in "abcdefghijk" for other in "abcdefghijk"]
    captions = Captions(texts, WordDetector("rain"), world[2])
    missing = {text[start:end].lower() for text, _, words in captions.captions for start, end in words}
    assert missing
    assert not missing & {"the", "rain", "barks", "times"}


def test_the_answer_of_a_caption_is_the_word_that_is_missing(world, monkeypatch):
    monkeypatch.setattr("audiobert.training.captions.COMMON", 0)
    _, _, spelling, lookup, _ = world
    text = "The sound of a cow and barks of rain"
    captions = Captions([text], WordDetector("rain"), spelling)
    examples = captions.examples(60, np.random.default_rng(0), lookup)
    assert len(examples) == 60
    answers = set()
    for example in examples:
        answer = spelled(spelling, example.answer)
        answers.add(answer)
        masks = " ".join(["[MASK]"] * len(example.answer))
        assert example.text.replace(masks, answer, 1).lower() == text.lower()
        assert len(example.spans) == 2
        for span, known in zip(example.spans, example.clips, strict=True):
            if "[MASK]" in example.text[slice(*span)]:
                assert not len(known.rows) and not len(known.names)
    assert {"rain", "cow", "barks"} <= answers
    heard = [len(known.rows) for example in examples for known in example.clips]
    assert max(heard) == 2


def test_captions_of_clips_ask_for_the_thing_or_for_what_it_does(world):
    clips, allowed, spelling, lookup, _ = world
    captions = ClipCaptions(clips, allowed, spelling)
    assert captions.captions == sorted(("a ", label, "sounding loudly") for label in ("cat", "cow", "drum", "flute"))
    lookup.prepare(captions.span_texts())
    answers = Counter(
        spelled(spelling, example.answer) for example in captions.examples(100, np.random.default_rng(0), lookup)
    )
    assert answers.keys() == {"cat", "cow", "drum", "flute", "sounding"}
    for example in captions.examples(50, np.random.default_rng(1), lookup):
        answer = spelled(spelling, example.answer)
        assert answer not in example.text.lower()
        (start, end), known = example.spans[0], example.clips[0]
        assert example.text[start:end].lower() in ("sounding loudly", "a cat", "a cow", "a drum", "a flute")
        if answer != "sounding" and known.scores.size and known.scores[0] > 0.9:
            assert label_of_clips(known) == {answer}


def test_a_batch_has_the_clips_answers_and_names_of_its_examples(world):
    lookup = world[3]
    examples = made(world)[:2]
    examples = [*examples, made(world, unheard_share=1.0)[0]]
    batch = BatchMaker(world[2]._tokenizer, 4, lookup.names)(examples, seed=3)
    assert batch.seed == 3
    assert batch.answers.tolist() == [token for example in examples for token in example.answer]
    assert batch.opposites.tolist() == [example.opposite for example in examples]
    assert batch.clips.shape == batch.scores.shape == (3, 2, 4)
    assert batch.clips[0, 0, :2].tolist() == examples[0].clips[0].rows.tolist()
    assert (batch.scores[:, :, 2:] < -1000).all()
    assert (batch.scores[2] < -1000).all()
    assert batch.names[0, 1].tolist() == examples[0].clips[1].names.tolist()
    drum = batch.name_weights[0, 1]
    assert drum[0] > 0.4 and drum.argmax() == 0  # the row is about a drum
    assert not batch.name_weights[2].any()
    assert int(batch.inputs.masks.sum()) == 3


def test_the_knowledge_of_a_batch_goes_where_the_settings_say(world):
    examples = made(world)[:1]
    (at_first, at_name) = (
        BatchMaker(world[2]._tokenizer, 4, world[3].names, injection=InjectionSettings(at=at))(examples).inputs.starts
        for at in ("first", "name")
    )
    assert (at_name - at_first).tolist() == [[3, 3]]  # "sound of a"


def test_kinds_are_left_out_of_the_relatives_of_a_batch(world):
    names = replace(world[3].names, dropout=0.5)
    kept = np.stack([names.kept(np.random.default_rng(seed)) for seed in range(400)])
    assert kept.mean() == pytest.approx(0.5, abs=0.05)
    of = {name: world[0].labels[clip] for name, clip in names.of_clips}
    drums = [name for name, label in of.items() if label == "drum"]
    assert len(drums) == 2  # the caption and the label are left out together
    assert (kept[:, drums[0]] == kept[:, drums[1]]).all()
    examples = made(world)
    weights = BatchMaker(world[2]._tokenizer, 4, names)(examples, seed=3).name_weights
    assert ((weights == 0).sum() > 0) and (weights != 0).any()


def test_of_the_rows_at_most_some_are_read_and_the_same_in_every_epoch(world):
    def keep(question):
        return "tuba" not in question.text

    rows = train_rows(world, keep, most=2, seed=1)
    first, second = (said(world, made(world, rows, seed)) for seed in (0, 1))
    assert first == second
    assert len(set(first)) == 2
    assert set(first) < set(ROWS)
    drawn = {tuple(said(world, made(world, train_rows(world, keep, most=2, seed=seed)))) for seed in range(20)}
    assert len(drawn) == 3  # any two of three
    assert rows.left_out == 1
    assert said(world, made(world, train_rows(world, most=9))) == list(ROWS)


def test_batches_hold_rows_of_one_kind_and_like_length():
    random = np.random.default_rng(0)
    rows = [(kind, int(length)) for kind, length in zip("abc" * 20, random.integers(1, 100, 60), strict=True)]
    lengths, kinds = [length for _, length in rows], [kind for kind, _ in rows]
    batches = by_length(rows, lengths, 8, random, jitter=0.0, kinds=kinds)
    assert Counter(row for batch in batches for row in batch) == Counter(rows)
    assert sorted(len(batch) for batch in batches) == [4] * 3 + [8] * 6
    assert all(len({kind for kind, _ in batch}) == 1 for batch in batches)
    for kind in "abc":
        ranges = sorted((min(b)[1], max(b)[1]) for b in batches if b[0][0] == kind)
        assert all(longest <= shortest for (_, longest), (shortest, _) in itertools.pairwise(ranges))
    assert any(len({kind for kind, _ in batch}) > 1 for batch in by_length(rows, lengths, 8, random, jitter=0.0))
