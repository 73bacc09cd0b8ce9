import pytest
import torch

from audiobert.backbone import load_backbone
from audiobert.errors import InputError
from audiobert.inputs import encode_texts, prepare


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


@pytest.mark.parametrize("mask", ["[MASK]", "[mask]", "[Mask]"])
def test_a_mask_in_any_letter_case(tokenizer, mask):
    prepared = prepare(tokenizer, f"Grüße! The {mask} purrs", 512)
    assert prepared.text == "Grüße! The [MASK] purrs"
    assert prepared.masks == 1


def test_offsets_lead_back_to_the_users_text():
    class Roberta:
        mask_token = "<mask>!"  # of another length than [MASK]
        mask_token_id = 1

    original = "a [MASK] bark and a [mask] meow"
    prepared = prepare(Roberta(), original, 512)
    start = prepared.text.index("meow")
    assert prepared.to_original(start, start + 4) == (original.index("meow"), len(original))
    assert prepared.to_text(original.index("bark"), original.index("bark") + 4) == (
        prepared.text.index("bark"),
        prepared.text.index("bark") + 4,
    )


def test_a_long_text_keeps_its_mask_and_loses_what_is_furthest(tokenizer):
    text = "word " * 900 + "the sound a [MASK] makes " + "word " * 900
    prepared = prepare(tokenizer, text, 128)
    inputs = encode_texts(tokenizer, [prepared.text])
    assert inputs.input_ids.shape[1] <= 128
    assert inputs.masks.sum() == 1
    at = prepared.text.index("sound")
    start, end = prepared.to_original(at, at + 5)
    assert text[start:end] == "sound"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("no mask here", "no \\[MASK\\]"),
        ("[MASK] " + "w " * 300 + "[MASK]", "apart"),
    ],
)
def test_texts_that_cannot_be_asked(tokenizer, text, message):
    with pytest.raises(InputError, match=message):
        prepare(tokenizer, text, 128)


def test_padding_is_masked(tokenizer):
    inputs = encode_texts(tokenizer, ["short", "a much longer sentence than the other"])
    assert torch.equal(inputs.attention_mask == 0, inputs.input_ids == tokenizer.pad_token_id)
