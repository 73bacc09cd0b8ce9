"""Masks, spans and windows: offsets that lead where they should."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiobert.backbone import load_backbone
from audiobert.errors import InputError
from audiobert.sentence import (
    Span,
    encode_answer,
    encode_prompts,
    encode_texts,
    fill_mask,
    pad_tokens,
    query_tokens,
    read_sentence,
    replace_text,
    shortened,
    spans_of_words,
    token_labels,
    token_range,
    windows,
)
from auditorybench_toys import roberta


@pytest.fixture(scope="module")
def tokenizer():
    return load_backbone("mini").tokenizer


def test_spans_become_token_ranges(tokenizer):
    text = "Ribbit is the sound a [MASK] makes."
    inputs = encode_texts(tokenizer, [text, "A [MASK] and a [MASK]."], [[(0, 6), (14, 19)], []])
    tokens = tokenizer.convert_ids_to_tokens(inputs.input_ids[0])
    first, second = [tokens[inputs.starts[0, i] : inputs.ends[0, i]] for i in range(2)]
    assert "".join(t.removeprefix("##") for t in first) == "ribbit"
    assert second == ["sound"]
    assert inputs.starts[1].tolist() == [-1, -1]
    assert inputs.masks.sum(dim=1).tolist() == [1, 2]
    assert torch.equal(inputs.to("cpu").starts, inputs.starts)
    assert encode_texts(tokenizer, [text]).starts.shape == (1, 0)
    nothing = encode_texts(tokenizer, [])
    assert nothing.input_ids.shape == nothing.starts.shape == (0, 0)


@pytest.mark.parametrize("mask", ["[MASK]", "[mask]", "[Mask]"])
def test_a_mask_in_any_letter_case(tokenizer, mask):
    sentence = read_sentence(tokenizer, f"Grüße! The {mask} purrs", 512)
    assert sentence.text == "Grüße! The [MASK] purrs"
    assert sentence.masks == 1


def test_offsets_lead_back_to_the_users_text():
    class Roberta:
        mask_token = "<mask>!"  # of another length than [MASK]

        def num_special_tokens_to_add(self):
            return 2

        def __call__(self, texts, **_):
            return {"input_ids": [[1] * len(texts)], "offset_mapping": [[(0, 1)] * len(texts)]}

    original = "a [MASK] bark and a [mask] meow"
    sentence = read_sentence(Roberta(), original, 512)
    start = sentence.text.index("meow")
    assert sentence.to_original(start, start + 4) == (original.index("meow"), len(original))
    bark = original.index("bark")
    assert sentence.to_text(bark, bark + 4) == (sentence.text.index("bark"), sentence.text.index("bark") + 4)
    mask = (sentence.text.index("<"), sentence.text.index("!") + 1)
    assert sentence.to_original(*mask) == (2, 8)
    assert sentence.to_text(2, 8) == mask
    assert sum(length for *_, length in sentence.pieces) == len(original) - 2 * len("[MASK]")
    for new, old, length in sentence.pieces:
        assert sentence.text[new : new + length] == original[old : old + length]
    for text in ("[MASK]", "[MASK] barks"):
        assert read_sentence(Roberta(), text, 512).to_original(0, 7) == (0, 6)


def test_a_long_text_keeps_its_mask_and_loses_what_is_furthest(tokenizer):
    text = "word " * 900 + "the sound a [MASK] makes " + "word " * 900
    sentence = read_sentence(tokenizer, text, 128)
    inputs = encode_texts(tokenizer, [sentence.text])
    assert inputs.input_ids.shape[1] <= 128
    assert inputs.masks.sum() == 1
    at = sentence.text.index("sound")
    start, end = sentence.to_original(at, at + 5)
    assert text[start:end] == "sound"
    assert sentence.to_text(start, end) == (at, at + 5)
    before, behind = (sentence.text[slice(*place)].count("word") for place in ((0, at), (at, None)))
    assert (before, behind) == (59, 62)  # and "the sound a", "makes": 62 and 63 tokens around the mask
    assert sentence.to_text(0, 4) == (0, 0)  # cut off
    assert sentence.to_text(len(text) - 5, len(text)) == (len(sentence.text),) * 2
    assert text[slice(*sentence.to_original(0, len(sentence.text)))] == sentence.text
    first = read_sentence(tokenizer, "A [MASK] " + "word " * 900, 128)
    assert first.text == "A [MASK]" + " word" * 124
    last = read_sentence(tokenizer, "word " * 900 + "a [MASK].", 128)
    assert last.text == "word " * 123 + "a [MASK]."


@pytest.mark.parametrize("apart", [1, 2, 3, 4, 5])
def test_all_masks_of_a_long_text_are_kept(tokenizer, apart):
    text = "word " * 40 + "[MASK] " + "mid " * (apart - 1) + "[MASK]" + " word" * 40
    assert encode_texts(tokenizer, [read_sentence(tokenizer, text, 8).text]).masks.sum() == 2


def test_masks_too_far_apart_are_refused_with_their_distance(tokenizer):
    with pytest.raises(InputError, match="stand 6 tokens apart, the model reads 6 at once"):
        read_sentence(tokenizer, "[MASK] " + "mid " * 5 + "[MASK]", 8)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return load_backbone(str(roberta(tmp_path_factory.mktemp("roberta")))).tokenizer


WORDS = st.lists(st.sampled_from(["word", "chirruping", "xylophones", "🐶", "é本", " ", "."]), max_size=40).map("".join)


@given(WORDS, WORDS, st.integers(6, 30))
def test_what_is_left_of_a_long_text_fits(tokenizer, byte_level, before, behind, max_tokens):
    for reader in (tokenizer, byte_level):  # where a word or a character is cut, its rest has other tokens
        sentence = read_sentence(reader, f"{before}[MASK]{behind}", max_tokens)
        inputs = encode_texts(reader, [sentence.text])
        assert inputs.input_ids.shape[1] <= max_tokens
        assert inputs.masks.sum() == 1


def test_a_text_that_just_fits_is_not_cut(tokenizer):
    fits = "[MASK]" + " word" * 125
    assert read_sentence(tokenizer, fits, 128).text == fits  # 126 tokens and the two special ones
    assert read_sentence(tokenizer, fits + " word", 128).text == fits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("no mask here", "no \\[MASK\\]"),
        ("[MASK] " + "w " * 300 + "[MASK]", "apart"),
        ("a \ud800 [MASK]", "lone surrogate"),
        (None, "of type NoneType"),
        (b"[MASK]", "of type bytes"),
    ],
)
def test_texts_that_cannot_be_answered(tokenizer, text, message):
    with pytest.raises(InputError, match=message):
        read_sentence(tokenizer, text, 128)


def test_padding_is_masked(tokenizer):
    inputs = encode_texts(tokenizer, ["short", "a much longer sentence than the other"])
    assert torch.equal(inputs.attention_mask == 0, inputs.input_ids == tokenizer.pad_token_id)


def test_prompts_have_their_answers_behind_them(tokenizer):
    long, short = (tokenizer.encode(text, add_special_tokens=False) for text in ("the big dog", "a cat"))
    inputs = encode_prompts(tokenizer, ["the big dog", "a cat"], [[(8, 11)], []], [[7, 8, 9], [5]], special=False)
    padding = [tokenizer.pad_token_id] * (len(long) + 2 - len(short))
    assert inputs.input_ids.tolist() == [[*long, 7, 8], short + padding]  # of the last token nothing is predicted
    assert inputs.masks.dtype == torch.bool
    assert inputs.masks.nonzero().tolist() == [[0, len(long) - 1 + i] for i in range(3)] + [[1, len(short) - 1]]
    assert (inputs.starts.tolist(), inputs.ends.tolist()) == ([[len(long) - 1], [-1]], [[len(long)], [-1]])
    prompts = encode_prompts(tokenizer, ["the big dog", "a cat"])
    assert prompts.input_ids[0].tolist() == tokenizer.encode("the big dog")
    assert prompts.masks.nonzero().tolist() == [[0, len(long) + 1], [1, len(short) + 1]]
    assert prompts.starts.shape == (2, 0)


def test_a_space_between_prompt_and_answer_is_the_answers():
    characters = SimpleNamespace(encode=lambda text, **_: list(text))
    assert encode_answer(characters, "ab ", "cd") == (["a", "b"], [" ", "c", "d"])
    assert encode_answer(characters, "ab ", "cd", special=False) == (["a", "b", " "], ["c", "d"])


def test_a_query_is_cut_and_keeps_its_last_token(tokenizer):
    ids, attention = query_tokens(tokenizer, ["word " * 50, "one"], 8)
    assert ids.shape == (2, 8)
    assert ids[0, -1] == tokenizer.sep_token_id
    assert attention.sum(dim=1).tolist() == [8, 3]
    assert pad_tokens(tokenizer, [])[0].shape == (0, 0)


def test_threads_do_not_cut_or_pad_each_others_texts(tokenizer):
    long, short = "the committee met again and " * 60 + "a [MASK] barked", "a [MASK] barked"
    alone = {text: encode_texts(tokenizer, [text]).input_ids.shape for text in (long, short)}
    wrong = []

    def work(text):
        for _ in range(30):
            if encode_texts(tokenizer, [text]).input_ids.shape != alone[text]:
                wrong.append(text[:20])
            query_tokens(tokenizer, [text], 8)

    threads = [threading.Thread(target=work, args=(text,)) for text in (long, short, long, short)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=6),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
def test_a_replaced_piece_moves_the_spans_along(before, piece, after, new):
    text = before + piece + after
    spans = [(0, len(before)), (len(before) + len(piece), len(text)), (0, len(text))]
    changed, (first, second, whole) = replace_text(text, (len(before), len(before) + len(piece)), new, spans)
    assert changed == before + new + after
    assert changed[slice(*first)] == before
    assert changed[slice(*second)] == after
    assert changed[slice(*whole)] == changed


def test_what_is_left_of_a_long_text_is_as_much_as_fits(byte_level):
    text = "🐶" * 40 + "[MASK]" + "🐶" * 40  # four tokens each, of which the window cuts some
    for max_tokens in range(12, 20):
        inputs = encode_texts(
            byte_level, [read_sentence(byte_level, text, max_tokens).text.replace("[MASK]", "<mask>")]
        )
        assert max_tokens - 6 <= inputs.input_ids.shape[1] <= max_tokens


def test_spans_move_with_a_mask_that_grows():
    text, spans = fill_mask("A [MASK] barks at a cat", [(0, 8), (9, 14)], "x y z")
    assert [text[slice(*span)] for span in spans] == ["A x y z", "barks"]


@pytest.mark.parametrize(
    ("length", "size", "overlap"), [(0, 8, 2), (5, 8, 2), (8, 8, 2), (9, 8, 2), (40, 8, 3), (9, 3, 5)]
)
def test_windows_cover_everything(length, size, overlap):
    found = list(windows(length, size, overlap))
    assert {at for start, stop in found for at in range(start, stop)} == set(range(length))
    assert all(stop - start <= size for start, stop in found)
    assert len(found) == len(set(found))


def test_tokens_inside_a_span_are_labelled():
    offsets = [(0, 0), (0, 3), (4, 6), (6, 9), (0, 0)]
    assert token_labels(offsets, [(4, 9)]).tolist() == [0, 0, 1, 1, 0]
    assert token_labels(offsets, [(6, 9)]).tolist() == [0, 0, 0, 1, 0]  # the one before ends where it begins
    assert token_labels(offsets, [(0, 3)]).tolist() == [0, 1, 0, 0, 0]
    assert token_labels(offsets, []).tolist() == [0] * 5
    assert token_labels([(0, 0), (3, 3), (2, 4)], [(0, 9)]).tolist() == [0, 0, 1]  # a token of no characters
    assert token_range(np.array([(0, 0), (3, 3), (2, 4), (4, 4)]), (0, 9)) == (2, 3)
    for span, tokens in (((4, 9), (2, 4)), ((6, 9), (3, 4)), ((3, 4), (-1, -1)), ((10, 12), (-1, -1))):
        assert token_range(np.array(offsets), span) == tokens


def test_neighbouring_words_join_and_distant_ones_do_not():
    text = "moo moo and baa!"
    words = [(0, 0, 3, 0.9), (1, 4, 7, 0.8), (2, 8, 11, 0.1), (3, 12, 15, 0.7), (4, 15, 16, 0.2)]
    spans = spans_of_words(text, words)
    assert [span.text for span in spans] == ["moo moo", "baa"]
    assert spans[0].score == pytest.approx(0.85)
    assert [span.text for span in spans_of_words(text, words, peak=0.9)] == ["moo moo"]  # whole, though 0.8 is below
    assert [span.text for span in spans_of_words(text, words, peak=0.91)] == []
    assert spans_of_words("!", [(0, 0, 1, 0.99)]) == []  # punctuation alone is no span
    assert [(span.start, span.end) for span in spans] == [(0, 7), (12, 15)]
    three = [(0, 0, 3, 0.9), (2, 8, 11, 0.4), (3, 12, 15, 0.35), (4, 15, 16, 0.6), (6, 17, 19, 0.4), (8, 20, 24, 0.3)]
    found = spans_of_words("moo moo and baa! so woof", three, threshold=0.3)
    assert [(span.text, span.start, span.end) for span in found] == [("moo", 0, 3), ("and baa!", 8, 16), ("so", 17, 19)]
    assert spans[1].to_json() == {"text": "baa", "start": 12, "end": 15, "score": 0.7}
    assert Span("baa", 12, 15, 0.123456).to_json()["score"] == 0.1235


def test_a_text_is_shortened_to_one_line():
    assert shortened("  a\n b ") == "a b"
    assert shortened("x" * 60) == "x" * 60
    assert shortened("x" * 61) == "x" * 59 + "…"
