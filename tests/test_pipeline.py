"""The shipped model, as a user holds it: answers, hearing, banks, recordings, threads, folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from audiobert import AudioBert
from audiobert.adapters import add_lora
from audiobert.answers import FillMask, Hit, MaskScores
from audiobert.bank import AudioBank, build_bank
from audiobert.errors import ArtefactError, InputError
from audiobert.injection import SpanKnowledge
from audiobert.model_folder import load_part, model_folder
from audiobert.parts import load_parts
from audiobert.relatives import Relatives
from audiobert.sentence import encode_texts
from bank_fakes import write_tone

SOUND = "Meow is the sound a [MASK] makes."
SILENT = "The capital of France is [MASK]."
MADE_UP = "The sound of a glorp has a [MASK] pitch than the sound of a zindle."
MADE_UP_SPANS = [(15, 20), (60, 66)]
NAMING = "This is the sound of a [MASK]."
CLEAR = 1e-3  # a difference of log-probabilities that no rounding makes


@pytest.fixture(scope="module")
def model() -> AudioBert:
    return AudioBert.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def tones(model: AudioBert, tmp_path_factory: pytest.TempPathFactory) -> AudioBank:
    """A bank of this model with low glorps and high zindles."""
    folder = tmp_path_factory.mktemp("tones")
    lines = []
    for label, frequency_hz in (("glorp", 150.0), ("zindle", 2_500.0)):
        for take in range(2):
            write_tone(folder / f"{label}{take}.wav", frequency_hz + 10 * take, seconds=1.0)
            lines.append(
                {"id": f"{label}{take}", "path": f"{label}{take}.wav", "label": label, "caption": f"a {label}"}
            )
    (folder / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_bank(folder / "clips.jsonl", folder / "bank", model.clip_encoder(), workers=0)
    return AudioBank.open(folder / "bank")


@pytest.fixture(scope="module")
def taught(model: AudioBert, tones: AudioBank) -> AudioBert:
    """The model that knows these tones and nothing else."""
    return model.with_bank(tones, only=True)


def made_up(model: AudioBert, **options: object) -> MaskScores:
    return model.score_masks([MADE_UP], spans=[MADE_UP_SPANS], **options)[0]  # type: ignore[arg-type]


def apart(one: MaskScores, other: MaskScores) -> float:
    return float((one.log_probs - other.log_probs).abs().max())


def tokens(answer: FillMask) -> list[str]:
    return [prediction.token for prediction in answer.masks[0].predictions]


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sound", "animal"), [("Meow", "cat"), ("Woof woof", "dog"), ("Moo", "cow")])
def test_it_knows_who_makes_the_sound(model: AudioBert, sound: str, animal: str) -> None:
    answer = model.fill_mask(f"{sound} is the sound a [MASK] makes.")
    assert answer.auditory
    assert [span.text for span in answer.spans] == [sound]
    assert animal in tokens(answer)


def test_clips_come_with_their_scores_the_best_first(model: AudioBert) -> None:
    (span,) = model.fill_mask(SOUND, clips_per_span=3).spans
    scores = [hit.score for hit in span.clips]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert "cat" in {hit.clip.label for hit in span.clips}


@pytest.mark.parametrize(
    "text", [SILENT, "The President signed the [MASK] on Tuesday.", "Paris is a [MASK] city, and it is old."]
)
def test_off_means_off_to_the_last_bit(model: AudioBert, text: str) -> None:
    answer = model.fill_mask(text)
    assert not answer.auditory
    assert answer.masks[0].predictions == answer.masks[0].base_predictions
    with_audio, without = model.score_masks([text])[0], model.score_masks([text], sound="off")[0]
    assert torch.equal(with_audio.log_probs, without.log_probs)


def test_no_audio_is_the_plain_language_model_to_the_last_bit(model: AudioBert) -> None:
    heard = model.fill_mask(SOUND)
    silent = model.fill_mask(SOUND, audio=False)
    assert not silent.auditory
    assert silent.spans == ()
    assert silent.masks[0].predictions == silent.masks[0].base_predictions
    beside = heard.masks[0].base_predictions  # of the product that gives both
    assert [p.token for p in beside] == [p.token for p in silent.masks[0].predictions]
    assert [p.score for p in beside] == pytest.approx([p.score for p in silent.masks[0].predictions], abs=1e-6)
    assert heard.masks[0].predictions != heard.masks[0].base_predictions


def test_the_plain_language_model_is_that_of_the_parts(model: AudioBert) -> None:
    inputs = encode_texts(model.tokenizer, [SOUND])
    with torch.no_grad():
        logits = model.parts.language_model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
    ours = model.score_masks([SOUND], sound="off")[0].log_probs
    torch.testing.assert_close(ours, logits[inputs.masks].log_softmax(dim=-1), rtol=1e-4, atol=1e-4)


def relatives_of(spans, model):
    """Relatives and their weights, as tensors of one row."""
    none = Relatives(np.zeros(model.bank.knowledge_vectors.shape[1], np.float32), 0.0)
    given = [span.relatives or none for span in spans]
    return torch.tensor([[one.vector.tolist() for one in given]]), torch.tensor([[one.weight for one in given]])


@pytest.mark.parametrize("text", [SOUND, "The sound of a flute has a [MASK] [MASK] pitch than the sound of a tuba."])
def test_the_answer_is_that_of_the_straightforward_form(model: AudioBert, text: str) -> None:
    """An adapter that is not folded, transformers' own forward, logits at every token, one sentence alone."""
    answer = model.fill_mask([text, SILENT], top_k=20)[0]
    weights, _ = load_part(model_folder("mini"), "audiobert")
    language_model = load_parts(model_folder("mini")).language_model
    for name, matrix in add_lora(language_model, model.settings.lora).items():
        matrix.data.copy_(weights[f"lora.{name}"])
    places = model.settings.injection.places(text, [(span.start, span.end) for span in answer.spans])
    inputs = encode_texts(model.tokenizer, [text], [places])
    known = SpanKnowledge(
        inputs.starts,
        torch.tensor([[[hit.knowledge.tolist() for hit in span.clips] for span in answer.spans]]),
        torch.tensor([[[hit.score for hit in span.clips] for span in answer.spans]]),
        *relatives_of(answer.spans, model),
    )
    with torch.no_grad():
        embeddings = model.model.injection(language_model.get_input_embeddings()(inputs.input_ids), known)
        logits = language_model.eval()(inputs_embeds=embeddings, attention_mask=inputs.attention_mask).logits
    wanted = logits[inputs.masks].softmax(dim=-1)
    assert answer.auditory and len(answer.masks) == len(wanted)
    for mask, probabilities in zip(answer.masks, wanted, strict=True):
        scores, ids = probabilities.topk(20)
        assert [p.token for p in mask.predictions] == [model.tokenizer.decode([token]).strip() for token in ids]
        assert [p.score for p in mask.predictions] == pytest.approx(scores.tolist(), abs=1e-5)


def test_without_the_plain_predictions_the_others_stay_as_they_are(model: AudioBert) -> None:
    with_base = model.fill_mask([SOUND, SILENT])
    without = model.fill_mask([SOUND, SILENT], base=False)
    assert without[0].masks[0].base_predictions == ()
    assert without[1].masks[0].base_predictions == without[1].masks[0].predictions != ()
    for one, other in zip(without, with_base, strict=True):
        scores = [[p.score for p in answer.masks[0].predictions] for answer in (one, other)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)  # batches of other sizes round otherwise


def test_many_sentences_answer_as_one_does(model: AudioBert) -> None:
    texts = [SOUND, SILENT, "A [MASK] barks at the [MASK].", "The sound of a flute is [MASK] than that of a tuba."] * 2
    together = model.fill_mask(texts)
    for text, answer in zip(texts, together, strict=True):
        alone = model.fill_mask(text)
        assert answer.text == text
        assert answer.auditory == alone.auditory
        assert len(answer.masks) == text.count("[MASK]")
        for one, other in zip(answer.masks, alone.masks, strict=True):
            assert one.predictions[0].score == pytest.approx(other.predictions[0].score, abs=1e-3)
    assert model.fill_mask([]) == []


def test_four_threads_answer_as_one_does(model: AudioBert, tones: AudioBank) -> None:
    texts = [SOUND, SILENT, "Woof is the sound a [MASK] makes.", MADE_UP, "Rain makes a [MASK] sound. " * 3]
    alone = [model.with_bank(tones).fill_mask(text) for text in texts]
    shared = model.with_bank(tones)  # a retriever that remembers nothing yet

    def answers(turn: int) -> list[tuple[int, FillMask]]:
        order = [(place + turn) % len(texts) for place in range(len(texts))] * 2
        return [(place, shared.fill_mask(texts[place])) for place in order]

    with ThreadPoolExecutor(4) as pool:
        found = [pair for pairs in pool.map(answers, range(4)) for pair in pairs]
    assert len(found) == 4 * 2 * len(texts)
    for place, answer in found:
        wanted = alone[place]
        assert answer.spans == wanted.spans
        for one, other in zip(answer.masks, wanted.masks, strict=True):
            assert [p.score for p in one.predictions] == pytest.approx([p.score for p in other.predictions], abs=1e-5)


def test_letter_case_does_not_matter(model: AudioBert) -> None:
    spellings = [
        "meow is the sound a [mask] makes.",
        "MEOW IS THE SOUND A [MASK] MAKES.",
        SOUND.replace("MASK", "Mask"),
    ]
    first, *others = map(model.fill_mask, spellings)
    assert all(tokens(other) == tokens(first) for other in others)


def test_unicode_and_offsets_of_the_users_own_text(model: AudioBert) -> None:
    text = "“Meow” 🐱 is the sound a [mask] makes — naïvely."
    answer = model.fill_mask(text)
    for span in answer.spans:
        assert text[span.start : span.end] == span.text
    assert any("Meow" in span.text for span in answer.spans)


def test_a_text_longer_than_the_window_is_cut_around_its_mask(model: AudioBert) -> None:
    filler = "The committee met on Monday and talked about the budget of the town. " * 60
    text = filler + SOUND + " " + filler
    answer = model.fill_mask(text)
    assert len(answer.masks) == 1
    for span in answer.spans:
        assert text[span.start : span.end] == span.text


def test_bad_questions_are_refused(model: AudioBert) -> None:
    for text, message in (("", "empty"), ("no mask", "no \\[MASK\\]")):
        with pytest.raises(InputError, match=message):
            model.fill_mask(text)
    with pytest.raises(InputError, match="top_k is 0"):
        model.fill_mask(SOUND, top_k=0)
    with pytest.raises(InputError, match="clips_per_span is 0"):
        model.fill_mask(SOUND, clips_per_span=0)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        *(
            (method, {"texts": texts}, "of type")
            for method in ("fill_mask", "detect", "score_masks")
            for texts in (None, 3, SOUND.encode(), {"a": "[MASK]"}, [SOUND, None], [[SOUND]], Path("a"))
        ),
        ("score_masks", {"texts": SOUND}, "the texts are of type str; give a list of strings"),
        ("score_masks", {"texts": [SOUND], "sound": "loud"}, "sound is 'loud'; give on, unheard, off"),
        ("fill_mask", {"texts": SOUND, "top_k": True}, "top_k is True; give a number from 1 to 30,522"),
        ("fill_mask", {"texts": SOUND, "top_k": "5"}, "top_k is '5'"),
        ("fill_mask", {"texts": SOUND, "sounds": "Meow=a.wav"}, "sounds is no mapping of words to files"),
        ("fill_mask", {"texts": SOUND, "sounds": {"Meow": 5}}, "the recording for 'Meow' is of type int"),
        ("search", {"query": 3}, "the query is of type int"),
        ("search", {"query": "dog", "top_k": 2.5}, "top_k is 2.5; give a whole number of at least 1"),
        ("search", {"query": "dog", "top_k": None}, "top_k is None"),
        ("save_pretrained", {"folder": None}, "the folder is of type NoneType"),
        ("save_pretrained", {"folder": ""}, "the folder is an empty string"),  # not the current folder
    ],
)
def test_arguments_of_wrong_types_are_one_line(
    model: AudioBert, method: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        getattr(model, method)(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bank", [5, b"bank", [None]])
def test_a_bank_of_a_wrong_type_is_one_line(bank: Any) -> None:
    with pytest.raises(InputError, match=r"^bank is of type \w+; give a string or a path$"):
        AudioBert.from_pretrained(bank=bank)
    with pytest.raises(InputError, match=r"^the bank's folder is of type"):
        AudioBank.open(bank)


def test_texts_of_any_collection_are_taken(model: AudioBert) -> None:
    pandas = pytest.importorskip("pandas")
    wanted = model.fill_mask([SOUND], base=False)
    for texts in ((SOUND,), {SOUND}, iter([SOUND]), np.array([SOUND]), pandas.Series([SOUND], index=[7])):
        assert model.fill_mask(texts, base=False, top_k=np.int64(5)) == wanted  # type: ignore[call-overload]


# --- hearing ----------------------------------------------------------------------------------------------------------


def test_what_a_made_up_name_sounds_like_changes_the_answer(taught: AudioBert, tones: AudioBank) -> None:
    heard = made_up(taught)
    assert [span.text for span in heard.spans] == ["glorp", "zindle"]
    excluded = made_up(taught, exclude=[clip.id for clip in tones.clips()])
    assert excluded.auditory and not any(span.clips for span in excluded.spans)
    assert apart(heard, excluded) > CLEAR
    assert apart(excluded, made_up(taught.with_bank(only=True))) < 1e-5


def test_a_clip_whose_knowledge_is_zero_is_not_heard(taught: AudioBert) -> None:
    heard = made_up(taught)
    hits = [span.clips for span in heard.spans]
    zeroed = [tuple(replace(hit, knowledge=np.zeros_like(hit.knowledge)) for hit in clips) for clips in hits]
    assert apart(made_up(taught, hits=[hits]), made_up(taught, hits=[zeroed])) > CLEAR


def test_which_of_two_recordings_a_name_gets_changes_the_answer(taught: AudioBert, tones: AudioBank) -> None:
    rows = {clip.id: row for row, clip in enumerate(tones.clips())}
    low, high = (
        Hit(tones.clip(row), 0.99, row, np.array(tones.knowledge_vectors[row]))
        for row in (rows["glorp0"], rows["zindle0"])
    )
    assert apart(made_up(taught, hits=[[(low,), (high,)]]), made_up(taught, hits=[[(high,), (low,)]])) > CLEAR


def test_unheard_has_the_lora_and_no_knowledge(model: AudioBert, taught: AudioBert) -> None:
    heard, unheard, off = (made_up(taught, sound=sound) for sound in ("on", "unheard", "off"))
    assert apart(heard, unheard) > CLEAR
    assert apart(unheard, off) > CLEAR  # the LoRA
    assert torch.equal(unheard.log_probs, made_up(model, sound="unheard").log_probs)  # whatever the bank holds
    assert unheard.auditory and len(unheard.spans) == 2
    assert not off.auditory and off.spans == ()
    assert torch.equal(off.log_probs, taught.score_masks([MADE_UP], spans=[[]])[0].log_probs)


def test_given_spans_and_excluded_clips(model: AudioBert) -> None:
    given = model.score_masks([SOUND], spans=[[(0, 4)]])[0]
    assert [span.text for span in given.spans] == ["Meow"]
    assert not model.score_masks([SOUND], spans=[[]])[0].auditory
    used = {hit.clip.id for hit in given.spans[0].clips}
    other = model.score_masks([SOUND], spans=[[(0, 4)]], exclude=used)[0]
    assert other.spans[0].clips
    assert not used & {hit.clip.id for hit in other.spans[0].clips}


# --- recordings of one's own ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recordings")
    write_tone(folder / "low.wav", 120.0, seconds=2.0)
    noise = np.random.default_rng(0).standard_normal(44_100)
    soundfile.write(folder / "noise.flac", 0.1 * noise, 44_100)
    return {"low": folder / "low.wav", "noise": folder / "noise.flac"}


def test_a_recording_stands_for_a_piece_of_the_text(model: AudioBert, recordings: dict[str, Path]) -> None:
    low, noise = (model.fill_mask(NAMING, sounds={"This": recordings[name]}) for name in ("low", "noise"))
    assert low.auditory
    span = low.spans[0]
    assert (span.text, span.start, span.end) == ("This", 0, 4)
    (hit,) = span.clips
    assert (hit.clip.path, hit.score, hit.row) == (str(recordings["low"]), 1.0, -1)
    assert hit.clip.pitch_hz == pytest.approx(120.0, rel=0.05)
    assert hit.clip.duration_s == pytest.approx(2.0, abs=0.1)
    assert low.masks[0].predictions != noise.masks[0].predictions
    assert low.masks[0].base_predictions == noise.masks[0].base_predictions
    assert json.loads(json.dumps(low.to_json()))["spans"][0]["clips"][0]["path"] == str(recordings["low"])


def test_a_recording_that_is_not_to_be_heard_changes_nothing(model: AudioBert, recordings: dict[str, Path]) -> None:
    heard = model.fill_mask(NAMING, sounds={"This": recordings["low"]})
    low, noise = (model.fill_mask(NAMING, sounds={"This": recordings[name]}, heard=False) for name in ("low", "noise"))
    assert low.auditory and [span.text for span in low.spans] == [span.text for span in heard.spans]
    assert low.masks[0].predictions == noise.masks[0].predictions != heard.masks[0].predictions
    assert low.masks[0].predictions != low.masks[0].base_predictions  # the LoRA


def test_a_recording_takes_the_place_of_what_was_found(model: AudioBert, recordings: dict[str, Path]) -> None:
    found = model.fill_mask(SOUND)
    own = model.fill_mask(SOUND, sounds={"Meow": str(recordings["noise"])})
    assert [span.text for span in own.spans] == [span.text for span in found.spans] == ["Meow"]
    assert own.spans[0].clips[0].clip.path == str(recordings["noise"])
    assert own.masks[0].predictions != found.masks[0].predictions


def test_two_recordings_are_for_two_pieces(model: AudioBert, recordings: dict[str, Path]) -> None:
    text = "The sound of a [mask] is not like AB: A or B?"  # neither the A of the mask nor that of AB
    answer = model.fill_mask(text, sounds={"B": recordings["noise"], "A": recordings["low"]})
    ours = {span.text: span for span in answer.spans if span.text in ("A", "B")}
    assert {name: span.clips[0].clip.id for name, span in ours.items()} == {"A": "low.wav", "B": "noise.flac"}
    assert all(text[span.start : span.end] == span.text for span in answer.spans)
    assert [span.start for span in answer.spans] == sorted(span.start for span in answer.spans)


def test_recordings_that_cannot_be_used_are_refused(
    model: AudioBert, recordings: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputError, match="'That' is not in the text"):
        model.fill_mask(NAMING, sounds={"That": recordings["low"]})
    with pytest.raises(InputError, match=r"nowhere\.wav"):
        model.fill_mask(NAMING, sounds={"This": tmp_path / "nowhere.wav"})
    with pytest.raises(InputError, match=r"text\.wav"):
        model.fill_mask(NAMING, sounds={"This": tmp_path / "text.wav"})


# --- banks ------------------------------------------------------------------------------------------------------------


def test_search_finds_the_class_that_is_named(model: AudioBert) -> None:
    hits = model.search("a dog barking", top_k=5)
    assert len(hits) == 5
    assert sum(hit.clip.label == "dog" for hit in hits) >= 3


def test_another_bank_is_searched_beside_the_models_own(model: AudioBert, tones: AudioBank) -> None:
    both = model.with_bank(tones.folder)
    assert len(both.retriever) == len(model.bank) + len(tones)
    assert both.model is model.model  # the weights are shared
    assert len(model.banks) == 1  # and the first model is as it was
    hits = both.search("a glorp", top_k=len(both.retriever))
    assert {clip.id for clip in tones.clips()} < {hit.clip.id for hit in hits}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_only_another_bank_is_searched(taught: AudioBert, tones: AudioBank) -> None:
    ids = {clip.id for clip in tones.clips()}
    assert {hit.clip.id for hit in taught.search("a dog barking", top_k=10)} == ids
    assert {hit.clip.id for span in taught.fill_mask(SOUND).spans for hit in span.clips} <= ids


def test_banks_are_given_when_the_model_is_loaded(tones: AudioBank) -> None:
    only = AudioBert.from_pretrained("mini", bank=tones.folder, only_bank=True, device="cpu")
    assert [bank.folder for bank in only.banks] == [tones.folder]
    with pytest.raises(InputError, match="only_bank leaves the model's own bank out; give a bank"):
        AudioBert.from_pretrained("mini", only_bank=True)


def test_missing_and_foreign_banks_are_refused(model: AudioBert, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="nowhere"):
        model.with_bank(tmp_path / "nowhere")
    foreign = tmp_path / "foreign"
    shutil.copytree(model.bank.folder, foreign)
    manifest = foreign / "bank.json"
    manifest.write_text(manifest.read_text().replace(model.parts.records["clap"].sha256, "0" * 64))
    with pytest.raises(ArtefactError, match="0000"):
        model.with_bank(foreign)
    with pytest.raises(ArtefactError, match="no model 'maxi'"):
        AudioBert.from_pretrained("maxi")
    with pytest.raises(ArtefactError, match=r"has no config\.json"):
        AudioBert.from_pretrained(str(tmp_path))


def test_the_shipped_bank_holds_no_audio(model: AudioBert) -> None:
    assert model.bank.verify().sound
    assert all(clip.path is None or not clip.path.startswith("/") for clip in model.bank.clips())
    np.testing.assert_allclose(np.linalg.norm(model.bank.clap_vectors.astype(np.float32), axis=1), 1.0, atol=2e-3)


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(taught: AudioBert, tmp_path: Path) -> Iterator[Path]:
    """A saved model, in a folder in which a stranger's files were."""
    folder = tmp_path / "saved"
    (folder / "photos").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "photos" / "bank.json").write_text("mine, too")
    taught.save_pretrained(folder)
    yield folder
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "photos" / "bank.json").read_text() == "mine, too"


def test_save_and_load_give_the_same_answers(taught: AudioBert, saved: Path) -> None:
    taught.save_pretrained(saved)  # once more, over its own files
    copy = AudioBert.from_pretrained(saved, device="cpu")
    assert copy.fill_mask(SOUND).to_json() == taught.fill_mask(SOUND).to_json()
    assert len(copy.bank) == len(taught.bank)
    assert copy.bank.verify().sound


def test_truncated_weights_are_refused(saved: Path) -> None:
    weights = saved / "detector.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtefactError, match=r"detector\.safetensors .* is damaged"):
        AudioBert.from_pretrained(saved)


def test_another_models_files_are_not_replaced(taught: AudioBert, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"config\.json"):
        taught.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == '{"model_type": "bert"}'


def test_the_shipped_weights_stay_below_thirty_megabytes() -> None:
    assert sum(path.stat().st_size for path in model_folder("mini").rglob("*") if path.is_file()) <= 30_000_000


def test_every_part_says_what_made_it() -> None:
    for part in ("language_model", "detector", "clap", "audiobert"):
        _, record = load_part(model_folder("mini"), part)
        assert {"created", "versions", "settings", "data"} <= (record.model_extra or {}).keys()
