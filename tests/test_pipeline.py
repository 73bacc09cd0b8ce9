"""The shipped model, as a user holds it."""

import shutil

import numpy as np
import pytest
import torch
from audiobert.inputs import encode_texts

from audiobert import AudioBert
from audiobert.adapters import LANGUAGE
from audiobert.bank import AudioBank
from audiobert.errors import ArtefactError, InputError
from audiobert.parts import load_part, model_folder

SOUND = "Meow is the sound a [MASK] makes."
SILENT = "The capital of France is [MASK]."


@pytest.fixture(scope="module")
def model():
    return AudioBert.from_pretrained("mini", device="cpu")


@pytest.mark.parametrize(
    ("sound", "animal"), [("Meow", "cat"), ("Woof woof", "dog"), ("Moo", "cow"), ("Ribbit", "frog"), ("Quack", "duck")]
)
def test_it_knows_who_makes_the_sound(model, sound, animal):
    answer = model.fill_mask(f"{sound} is the sound a [MASK] makes.")
    assert answer.auditory
    assert [span.text for span in answer.spans] == [sound]
    assert answer.masks[0].predictions[0].token == animal


def test_meow_is_looked_up_among_cats(model):
    span = model.fill_mask(SOUND).spans[0]
    assert span.clips[0].clip.label == "cat"
    assert -1 <= span.clips[-1].score <= span.clips[0].score <= 1


def test_pitch_of_instruments_both_ways_round(model):
    for first, second in (("piccolo", "double bass"), ("flute", "tuba"), ("violin", "cello")):
        text = "The sound of a {} has a [MASK] pitch than the sound of a {}."
        assert model.fill_mask(text.format(first, second)).masks[0].predictions[0].token == "higher"
        assert model.fill_mask(text.format(second, first)).masks[0].predictions[0].token == "lower"


@pytest.mark.parametrize(
    "text",
    [
        SILENT,
        "She put the [MASK] on the table and left.",
        "The President signed the [MASK] on Tuesday.",
        "Paris is a [MASK] city, and it is old.",
    ],
)
def test_off_means_off_to_the_last_bit(model, text):
    answer = model.fill_mask(text)
    assert not answer.auditory
    assert answer.masks[0].predictions == answer.masks[0].base_predictions
    with_audio, without = model.score_masks([text])[0], model.score_masks([text], audio=False)[0]
    assert torch.equal(with_audio.log_probs, without.log_probs)


def test_no_audio_is_the_plain_language_model_to_the_last_bit(model):
    heard = model.fill_mask(SOUND)
    silent = model.fill_mask(SOUND, audio=False)
    assert not silent.auditory
    assert silent.spans == ()
    assert silent.masks[0].predictions == silent.masks[0].base_predictions == heard.masks[0].base_predictions
    assert heard.masks[0].predictions != heard.masks[0].base_predictions


def test_the_plain_language_model_is_backbone_lora_and_head(model):
    inputs = encode_texts(model.tokenizer, [SILENT])
    with model.parts.adapters.on(LANGUAGE), torch.no_grad():
        logits = model.parts.language_model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits[
            inputs.masks
        ]
    ours = model.score_masks([SILENT])[0].log_probs
    torch.testing.assert_close(ours, logits.log_softmax(dim=-1), rtol=1e-4, atol=1e-4)


def test_many_sentences_answer_as_one_does(model):
    texts = [SOUND, SILENT, "A [MASK] barks at the [MASK].", "The sound of a flute is [MASK] than that of a tuba."] * 3
    together = model.fill_mask(texts)
    for text, answer in zip(texts, together, strict=True):
        alone = model.fill_mask(text)
        assert answer.text == text
        assert answer.auditory == alone.auditory
        assert len(answer.masks) == text.count("[MASK]")
        for one, other in zip(answer.masks, alone.masks, strict=True):
            assert next(p.token for p in one.predictions) == next(p.token for p in other.predictions)


@pytest.mark.parametrize(
    "text",
    ["meow is the sound a [mask] makes.", "MEOW IS THE SOUND A [MASK] MAKES.", "Meow is the sound a [Mask] makes."],
)
def test_letter_case_does_not_matter(model, text):
    assert model.fill_mask(text).masks[0].predictions[0].token == "cat"


def test_unicode_and_offsets_of_the_users_own_text(model):
    text = "“Meow” 🐱 is the sound a [mask] makes — naïvely."
    answer = model.fill_mask(text)
    for span in answer.spans:
        assert text[span.start : span.end] == span.text
    assert any("Meow" in span.text for span in answer.spans)


def test_a_text_longer_than_the_window_is_cut_around_its_mask(model):
    filler = "The committee met on Monday and talked about the budget of the town. " * 60
    text = filler + SOUND + " " + filler
    answer = model.fill_mask(text)
    assert len(answer.masks) == 1
    for span in answer.spans:
        assert text[span.start : span.end] == span.text


def test_bad_questions_are_refused(model):
    for text, message in (("", "empty"), ("no mask", "no \\[MASK\\]")):
        with pytest.raises(InputError, match=message):
            model.fill_mask(text)
    with pytest.raises(InputError, match="top_k is 0"):
        model.fill_mask(SOUND, top_k=0)
    with pytest.raises(InputError, match="clips_per_span is 0"):
        model.fill_mask(SOUND, clips_per_span=0)


def test_gold_spans_and_excluded_clips(model):
    given = model.score_masks([SOUND], spans=[[(0, 4)]])[0]
    assert [span.text for span in given.spans] == ["Meow"]
    assert not model.score_masks([SOUND], spans=[[]])[0].auditory
    used = {hit.clip.id for hit in given.spans[0].clips}
    other = model.score_masks([SOUND], spans=[[(0, 4)]], exclude=used)[0]
    assert not used & {hit.clip.id for hit in other.spans[0].clips}


def test_search_finds_the_class_that_is_named(model):
    hits = model.search("a dog barking", top_k=5)
    assert len(hits) == 5
    assert sum(hit.clip.label == "dog" for hit in hits) >= 3


def test_save_and_load_give_the_same_answers(model, tmp_path):
    model.save_pretrained(tmp_path / "copy")
    copy = AudioBert.from_pretrained(str(tmp_path / "copy"), device="cpu")
    assert copy.fill_mask(SOUND).to_json() == model.fill_mask(SOUND).to_json()


def test_a_truncated_weights_file_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path / "copy")
    weights = tmp_path / "copy" / "detector.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtefactError, match=r"detector\.safetensors .* is damaged"):
        AudioBert.from_pretrained(str(tmp_path / "copy"))


def test_missing_and_foreign_banks_are_refused(model, tmp_path):
    with pytest.raises(ArtefactError, match="nowhere"):
        AudioBert.from_pretrained("mini", bank=tmp_path / "nowhere")
    foreign = tmp_path / "foreign"
    shutil.copytree(model.bank.folder, foreign)
    manifest = foreign / "bank.json"
    manifest.write_text(manifest.read_text().replace(model.parts.records["clap"]["sha256"], "0" * 64))
    with pytest.raises(ArtefactError, match="0000"):
        AudioBert.from_pretrained("mini", bank=foreign)
    with pytest.raises(ArtefactError, match="no model 'maxi'"):
        AudioBert.from_pretrained("maxi")
    with pytest.raises(ArtefactError, match=r"has no config\.json"):
        AudioBert.from_pretrained(str(tmp_path))


def test_the_shipped_bank_holds_no_audio():
    bank = AudioBank.open(model_folder("mini") / "bank")
    assert bank.verify().sound
    assert all(clip.path is None or not clip.path.startswith("/") for clip in bank.clips())
    np.testing.assert_allclose(np.linalg.norm(bank.clap_vectors.astype(np.float32), axis=1), 1.0, atol=2e-3)


def test_the_shipped_weights_stay_below_thirty_megabytes():
    assert sum(path.stat().st_size for path in model_folder("mini").rglob("*") if path.is_file()) <= 30_000_000


def test_every_part_says_what_made_it():
    for part in ("language_model", "detector", "clap", "audiobert"):
        _, record = load_part(model_folder("mini"), part)
        assert {"created", "versions", "settings", "backbone", "data", "sha256"} <= record.keys()


def test_a_missing_word_is_joined_where_one_whole_word_is_asked_for(model):
    asked = "Meow is the sound a [MASK] makes."
    several = "Meow is the sound a [MASK] makes, woof that of a [MASK]."
    joined, alone = (model.score_masks([asked, several], begun=[begun, begun]) for begun in (False, True))
    assert not torch.equal(joined[0].log_probs, alone[0].log_probs)
    assert torch.equal(joined[1].log_probs, alone[1].log_probs)  # two words: the scorer knows sentences with one blank
    for scores in (*joined, *alone):
        total = scores.log_probs.exp().sum(dim=-1)
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=0)


def test_masks_side_by_side_ask_for_one_word(model):
    asked = ["Drumming on wood is the sound a [MASK] [MASK] [MASK] makes.", "A [MASK] [MASK] makes a quacking sound."]
    for scores in model.score_masks(asked):
        chosen = scores.log_probs.argmax(dim=-1).tolist()
        assert model.tokenizer.decode(chosen) in model.model.settings.lexicon
