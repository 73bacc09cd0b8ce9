"""Grounding sentences say the truth about the clips that they are made of, and never name what is withheld."""

import re
from collections import Counter

import numpy as np
import pytest

from audiobert.auditorybench.attributes import Attribute, builtin_attributes, measurement_of_kind
from audiobert.auditorybench.kinds import withheld_clips
from audiobert.errors import InputError
from audiobert.training.grounding import Grounding, GroundingSettings
from training_toys import MEASURED, TAKES, measured_clips, measured_lookup, spelled, toy_spelling

COLUMNS = {"higher": 0, "lower": 0, "brighter": 1, "darker": 1, "longer": 2, "shorter": 2}
MORE = {"higher", "brighter", "longer"}
KNOWN = [label for label in MEASURED if label not in ("owl", "tuba")]
LOUDNESS = """
name: loudness
measure: loudness_dbfs
words: [louder, quieter]
min_ratio: 1.2
templates: ["{x} is [MASK] than {y}.", "Compared with {y}, {x} is [MASK]."]
extremes:
  words: [loud, quiet]
  templates: ["{x} is [MASK]."]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips, those that may be learnt from, spelling, lookup."""
    folder = tmp_path_factory.mktemp("grounding")
    clips = measured_clips()
    allowed = ~withheld_clips(clips.labels)
    spelling = toy_spelling(folder / "bert", "louder", "quieter", "loud", "quiet")
    return clips, allowed, spelling, measured_lookup(folder / "bank", clips, allowed)


def made(world, attributes=None, seed=0, **settings):
    clips, allowed, spelling, lookup = world
    grounding = Grounding(clips, allowed, spelling, lookup, GroundingSettings(**settings), attributes)
    return grounding.examples(np.random.default_rng(seed))


def label_of_clips(example, place):
    """The kind whose clips a span has; None without clips."""
    rows = example.clips[place].rows
    labels = {list(MEASURED)[row // TAKES] for row in rows}
    assert len(labels) <= 1, "a span has clips of several kinds"
    return labels.pop() if labels else None


def subject_first(text):
    return not text.startswith("Compared with")


def truth(example, answer, labels):
    """Whether the answer is what the measurements of the two kinds say."""
    values = [MEASURED[label][COLUMNS[answer]] for label in labels]
    subject, other = values if subject_first(example.text) else values[::-1]
    return (subject > other) == (answer in MORE)


@pytest.mark.parametrize("share", ["read_share", "clip_share"])
def test_comparisons_of_clips_say_what_was_measured(world, share):
    spelling = world[2]
    shares = {"read_share": 0.0, "unheard_share": 0.0, "mixed_share": 0.0, "clip_share": 0.0} | {share: 1.0}
    examples = made(world, comparisons=400, **shares)
    assert len(examples) > 300
    words = Counter()
    for example in examples:
        answer = spelled(spelling, example.answer)
        words[answer] += 1
        assert truth(example, answer, [label_of_clips(example, place) for place in (0, 1)])
        assert example.opposite is not None
        assert COLUMNS[spelled(spelling, [example.opposite])] == COLUMNS[answer]
        assert spelled(spelling, [example.opposite]) != answer
    assert words.keys() == COLUMNS.keys()


def test_names_that_are_read_are_those_of_the_clips_or_have_none(world):
    spelling = world[2]
    read = {"read_share": 1.0, "unheard_share": 0.0, "mixed_share": 0.0, "clip_share": 0.0}
    examples = made(world, comparisons=200, **read)
    assert examples
    for example in examples:
        labels = [
            next(label for label in KNOWN if label in example.text[slice(*span)].lower()) for span in example.spans
        ]
        assert labels == [label_of_clips(example, place) for place in (0, 1)]
    unheard = {"read_share": 0.0, "unheard_share": 1.0, "mixed_share": 0.0, "clip_share": 0.0}
    attribute = [a for a in builtin_attributes() if a.name == "pitch"]
    examples = made(world, attribute, comparisons=200, nearest_share=0.0, **unheard)
    assert examples
    assert not any(len(known.rows) + len(known.names) for example in examples for known in example.clips)
    for example in examples:
        labels = [
            next(label for label in KNOWN if label in example.text[slice(*span)].lower()) for span in example.spans
        ]
        assert truth(example, spelled(spelling, example.answer), labels)


def test_unread_comparisons_name_no_kind_and_can_be_known_only_by_their_clips(world):
    shares = {"read_share": 0.0, "unheard_share": 0.0, "mixed_share": 0.0, "clip_share": 0.5}
    examples = made(world, comparisons=300, **shares)
    assert examples
    for example in examples:
        assert not re.search("|".join(MEASURED), example.text.lower())
        assert all(len(known.rows) for known in example.clips)


def test_names_that_say_nothing_may_have_the_clips_of_what_is_near_alone(world):
    spelling = world[2]
    attribute = [a for a in builtin_attributes() if a.name == "pitch"]
    examples = made(world, attribute, comparisons=200, clip_share=0.0, relatives_share=1.0)
    of_near = 0
    for example in examples:
        assert not re.search("|".join(MEASURED), example.text.lower())
        assert all(len(known.names) for known in example.clips)
        kinds = [label_of_clips(example, place) for place in (0, 1)]
        of_near += not truth(example, spelled(spelling, example.answer), kinds)
    assert of_near  # what is near differs from the kinds that are compared


def test_twins_are_the_same_comparison_the_other_way_round(world):
    spelling = world[2]
    examples = made(world, comparisons=200, twins=True)
    assert len(examples) % 2 == 0
    for first, second in zip(examples[::2], examples[1::2], strict=True):
        answers = [spelled(spelling, one.answer) for one in (first, second)]
        assert answers[0] != answers[1]
        assert COLUMNS[answers[0]] == COLUMNS[answers[1]]
        rows = [[list(known.rows) for known in one.clips] for one in (first, second)]
        assert rows[0] == rows[1][::-1]
    assert len(made(world, comparisons=200, twins=False)) <= 200


def test_withheld_kinds_are_never_named_and_their_clips_never_used(world):
    clips, allowed, spelling, _ = world
    assert not allowed[[clips.labels.index("owl"), clips.labels.index("tuba")]].any()
    examples = made(world, comparisons=600, extremes=200, names=200)
    used = {int(row) for example in examples for known in example.clips for row in known.rows}
    assert used <= set(np.flatnonzero(allowed))
    assert used == set(np.flatnonzero(allowed))  # and all others are
    said = {spelled(spelling, example.answer) for example in examples}
    assert not said & {"owl", "tuba"}
    assert not any(re.search("owl|tuba", example.text.lower()) for example in examples)


def test_a_kind_measures_the_mean_of_its_clips_in_hz():
    pitch = next(attribute for attribute in builtin_attributes() if attribute.name == "pitch")
    assert measurement_of_kind(pitch.logarithms([100.0, 100.0, 700.0, None])) == pytest.approx(np.log2(300.0))
    assert measurement_of_kind(pitch.logarithms([100.0, None, None])) is None


def test_single_sounds_are_much_or_little_as_measured(world):
    spelling = world[2]
    columns = {"high": 0, "low": 0, "long": 2, "short": 2}
    said = Counter()
    for example in made(world, extremes=300, nearest_share=0.0):
        answer, label = spelled(spelling, example.answer), label_of_clips(example, 0)
        named = next((kind for kind in KNOWN if kind in example.text.lower()), None)
        if (label or named) is None:  # nothing to know it by but the words
            continue
        assert label in (named, None) or named is None
        value = MEASURED[label or named][columns[answer]]
        middle = np.median([MEASURED[kind][columns[answer]] for kind in KNOWN])
        assert (value > middle) == (answer in ("high", "long"))
        said[answer] += 1
    assert said.keys() == columns.keys()


def test_naming_asks_for_the_kind_of_the_clip(world):
    spelling = world[2]
    examples = made(world, names=100)
    assert len(examples) == 100
    for example in examples:
        assert spelled(spelling, example.answer) == label_of_clips(example, 0)
        assert not re.search("|".join(MEASURED), example.text.lower())
    assert {label_of_clips(example, 0) for example in examples} == set(KNOWN)


def test_spans_are_places_in_the_text_that_hold_no_mask(world):
    examples = made(world, comparisons=200, extremes=50, names=50)
    assert any(example.spans for example in examples)
    for example in examples:
        assert example.text.count("[MASK]") == len(example.answer)
        assert list(example.spans) == sorted(example.spans)
        for start, end in example.spans:
            assert 0 <= start < end <= len(example.text)
            assert "[MASK]" not in example.text[start:end]


def test_an_epoch_is_the_same_for_the_same_seed_and_another_for_another(world):
    texts = [[one.text for one in made(world, seed=seed, comparisons=40, names=5)] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_an_attribute_of_another_file_is_learnt_from_like_the_others(world, tmp_path):
    (tmp_path / "loudness.yaml").write_text(LOUDNESS)
    attribute = Attribute.load(tmp_path / "loudness.yaml")
    spelling = world[2]
    shares = {"read_share": 0.0, "unheard_share": 0.0, "mixed_share": 0.0, "clip_share": 0.5}
    examples = made(world, [attribute], comparisons=100, **shares)
    assert len(examples) > 80
    for example in examples:
        answer = spelled(spelling, example.answer)
        assert answer in attribute.words
        pitches = [MEASURED[label_of_clips(example, place)][0] for place in (0, 1)]
        subject, other = pitches if subject_first(example.text) else pitches[::-1]
        assert (subject < other) == (answer == "louder")  # the lower is the louder one of these clips
    single = made(world, [attribute], extremes=40)
    assert {spelled(spelling, example.answer) for example in single} == {"loud", "quiet"}


def test_the_attributes_that_ship_have_their_blanks():
    found = builtin_attributes()
    assert {"pitch", "duration", "brightness"} <= {attribute.name for attribute in found}
    for attribute in found:
        for template in attribute.templates:
            assert all(template.count(blank) == 1 for blank in ("{x}", "{y}", "[MASK]")), template
        for template in attribute.extremes.templates if attribute.extremes else ():
            assert template.count("{x}") == template.count("[MASK]") == 1, template


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x", "'measure' is missing"),
        (LOUDNESS.replace("min_ratio: 1.2", "min_ratio: 0.9"), "min_ratio"),
        (LOUDNESS.replace("measure:", "column:"), "column|measure"),
        ("[", "is not YAML"),
    ],
)
def test_a_file_that_is_no_attribute_is_one_line(text, message, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Attribute.load(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)
