"""What text becomes in the trainings: sounds told in passing, batches of masked lines, lines that are left out."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

from audiobert.auditorybench.data import Row
from audiobert.errors import InputError
from audiobert.training.carriers import Carriers, Marked, by_sounds, marked, told_in_prose
from audiobert.training.detector import DetectorConfig, Sentences, align, with_mask
from audiobert.training.masked_lm import IGNORED, Lines, MaskedLmConfig, MaskedLmObjective, perplexity, training_lines
from audiobert.training.sound_words import find_sound_words
from auditorybench_toys import bert

CAPTIONS = [
    "A dog barks",
    "A dog is barking",
    "A dog barking sound",
    "A bell is chiming",
    "A bell chimes",
    "A chiming sound",
]
PLAIN = [
    "The man walked in the yard.", "He sat on the bench and read a book.", "The house was old.",
    "She was talking to the clerk at the counter.", "The river is wide.", "He had been talking all day.",
]  # fmt: skip
TOLD = ["Soon the dog barked at him.", "He asked what the barking was.", "The sound of the sea came in."]


@pytest.fixture(scope="module")
def words():
    return find_sound_words(CAPTIONS * 10, PLAIN * 2000 + TOLD, ["bark: the sound made by a dog.", "chime: a sound."])


def test_verbs_of_sound_are_found_with_their_makers_and_forms(words):
    assert {verb.forms for verb in words.verbs} == {
        ("bark", "barks", "barked", "barking"),
        ("chime", "chimes", "chimed", "chiming"),
    }
    assert {verb: set(nouns) for verb, nouns in words.makers.items()} == {"bark": {"dog"}, "chime": {"bell"}}


def test_lines_that_tell_of_a_sound_are_no_negatives(words):
    assert by_sounds(PLAIN + TOLD, words) == (PLAIN, TOLD)


def test_a_maker_with_its_verb_is_a_span_in_prose_and_other_sounds_are_unknown(words):
    line = "The dog barked while barking went on."
    assert told_in_prose([line, *TOLD[1:]], words) == [Marked(line, ((4, 14),), ((21, 28),))]


def test_made_sentences_have_spans_where_their_sounds_are(words):
    carriers = Carriers(words, CAPTIONS, PLAIN, TOLD, ["rattle of a train"])
    random = np.random.default_rng(0)
    made = [carriers(random) for _ in range(400)]
    spans = [one.text[start:end] for one in made for start, end in one.spans]
    assert all(span == span.strip() and span and "{" not in span for span in spans)
    assert not any("{" in one.text or "}" in one.text for one in made)
    for expected in ("dog barked", "bell chiming", "rattle of a train", "sound", "first sound", "dog", "barked"):
        assert expected in spans
    assert any("[MASK] has a" not in one.text and "[MASK]" in one.text and len(one.spans) == 2 for one in made)
    assert "sound of a " in {one.text[start:end] for one in made for start, end in one.unknown}
    assert any("came from a [MASK]" in one.text or ", says the [MASK]" in one.text for one in made)
    assert any(not one.spans for one in made)  # "the river lasts [MASK] than the house"
    assert made == [carriers(again) for again in [np.random.default_rng(0)] for _ in range(400)]


def test_clauses_of_a_caption_without_a_verb_of_sound_are_left_open(words):
    carriers = Carriers(words, ["A dog barks and a man walks"], PLAIN)
    assert carriers.caption(np.random.default_rng(0)) == Marked("A dog barks and a man walks", ((2, 11),), ((18, 27),))


def test_spans_are_marked_by_braces():
    assert marked("{a dog} and the {cat purred}.") == Marked("A dog and the cat purred.", ((0, 5), (14, 24)))
    assert marked("the <sound of a >{dog}") == Marked("The sound of a dog", ((15, 18),), ((4, 15),))


class OneByOne:
    """A tokenizer of characters whose mask is not spelled "[MASK]"."""

    mask_token = "<mask>"

    def __call__(self, texts, **_):
        self.read = list(texts)
        width = max(map(len, texts)) + 1
        offsets = [[(0, 0), *((i, i + 1) for i in range(len(text)))] for text in texts]
        padded = torch.tensor([row + [(0, 0)] * (width - len(row)) for row in offsets])
        return {"input_ids": padded[..., 0], "attention_mask": padded[..., 1], "offset_mapping": padded}


def test_masks_are_spelled_as_the_tokenizer_spells_them():
    tokenizer = OneByOne()
    sentences = Sentences([], [], None, tokenizer, DetectorConfig())  # type: ignore[arg-type]
    _, _, labels = sentences.batch([Marked("A [MASK] says woof.", ((14, 18),), ((0, 1),))])
    assert tokenizer.read == ["A <mask> says woof."]
    assert labels[0].tolist() == [IGNORED, IGNORED, *[0] * 13, 1, 1, 1, 1, 0]
    assert with_mask(Marked("A [MASK] woof", ((9, 13),)), "<m>") == Marked("A <m> woof", ((6, 10),))


def test_each_row_is_filled_with_its_own_answer():
    """Sentences repeat in the benchmark with other answers."""
    rows = [
        Row("animal", "train", place, "Woof is the sound a [MASK] makes.", answer, ("Woof",), ((0, 4),))
        for place, answer in enumerate(("dog", "seal", "fox"))
    ]
    config = DetectorConfig(answer_share=1.0, negatives=0, carriers=0)
    sentences = Sentences(align(rows), [], None, OneByOne(), config)  # type: ignore[arg-type]
    texts = [one.text for one in sentences.examples(np.random.default_rng(0))]
    assert texts == [f"Woof is the sound a {answer} makes." for answer in ("dog", "seal", "fox")]


def test_masked_lines_keep_their_tokens_and_special_ones(tmp_path):
    bert(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    config = MaskedLmConfig(tokens_per_batch=64)
    texts = ["the dog and the cat and the bell"] * 30 + ["the dog and the cat"] * 30
    lines = Lines(texts, tokenizer, config)
    plan = lines.batches(0)
    assert sorted(i for _, members in plan for i in members) == list(range(60))
    replaced = 0
    for seed, members in plan:
        ids, attention, labels = lines.masked(seed, members, 0.5)
        assert ids.numel() <= 64 + 3 * len(members)
        for row, member in enumerate(members):
            own = torch.tensor(tokenizer(texts[member])["input_ids"])
            length = int(attention[row].sum())
            assert length == len(own)
            seen, wanted = ids[row, :length], labels[row, :length]
            assert torch.equal(torch.where(wanted == IGNORED, seen, wanted), own)
            assert wanted[0] == wanted[-1] == IGNORED and bool((labels[row, length:] == IGNORED).all())
            replaced += int(((wanted != IGNORED) & (seen != tokenizer.mask_token_id) & (seen != wanted)).sum())
            assert not set(seen[1:-1].tolist()) & {
                tokenizer.cls_token_id,
                tokenizer.sep_token_id,
                tokenizer.pad_token_id,
            }
    assert replaced


def test_perplexity_of_a_model_that_is_no_bert(tmp_path):
    bert(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    torch.manual_seed(0)
    size = len(tokenizer)
    config = RobertaConfig(
        vocab_size=size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    objective = MaskedLmObjective(RobertaForMaskedLM(config))
    found = perplexity(objective, Lines(["the dog and the cat and the bell"] * 20, tokenizer, MaskedLmConfig()))
    assert found == pytest.approx(size, rel=0.3)  # it was not trained: every word is about equally likely


def write_text(folder, **files):
    for name, text in files.items():
        with gzip.open(folder / f"{name}.gz", "wt") as file:
            file.write(text)


def test_lines_of_both_texts_are_read_and_some_are_left_out(tmp_path):
    write_text(
        tmp_path, **{"general_train.txt": "One.\nTwo.", "audiocaps_captions.csv": "split,caption\ntrain,A dog barks\n"}
    )
    lines, sources, left_out = training_lines(tmp_path, None)
    assert (lines, left_out) == (["One.", "Two.", "A dog barks"], 0)
    write_text(tmp_path, **{"general_train2.txt": "bark: a sound.\nThree."})
    (tmp_path / "sound_lines.txt").write_text("bark: a sound.\n")
    lines, sources, left_out = training_lines(tmp_path, "sound_lines.txt")
    assert (lines, left_out) == (["One.", "Two.", "Three.", "A dog barks"], 1)
    assert [path.name for path in sources][-1] == "sound_lines.txt" and len(sources) == 4
    (tmp_path / "other.txt").write_text("Nowhere.\n")
    with pytest.raises(InputError, match=r"leave_out is 'other\.txt', but none of its lines"):
        training_lines(tmp_path, "other.txt")
