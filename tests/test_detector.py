import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from audiobert.detector import keep_first_layers
from audiobert.errors import InputError
from audiobert.model_folder import model_folder
from audiobert.parts import load_parts


@pytest.fixture(scope="module")
def detector():
    return load_parts(model_folder("mini")).detector


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("Meow is the sound a [MASK] makes.", ["Meow"]),
        ("The sound of a piccolo has a [MASK] pitch than the sound of a double bass.", 2),
        ("The capital of France is [MASK].", []),
        ("The minister [MASK] the new law on Friday.", []),
        ("", []),
        ("   ", []),
    ],
)
def test_words_about_sound_are_found_and_others_are_not(detector, text, spans):
    found = detector.detect([text])[0]
    assert len(found) == spans if isinstance(spans, int) else [span.text for span in found] == spans
    for span in found:
        assert text[span.start : span.end] == span.text
        assert 0.5 < span.score <= 1.0


def test_a_batch_finds_what_one_text_finds(detector):
    texts = ["Moo is the sound a [MASK] makes.", "He went home.", "A [MASK] makes a chirping sound in the morning."]
    assert [[s.text for s in row] for row in detector.detect(texts)] == [
        [s.text for s in detector.detect([text])[0]] for text in texts
    ]
    assert detector.detect([]) == []


def test_a_text_of_many_windows_keeps_its_offsets(detector):
    filler = "The committee met on Monday and talked about the budget of the town. "
    text = filler * 60 + "A [MASK] makes a chirping sound in the morning. " + filler * 60
    found = detector.detect([text])[0]
    assert "chirping" in [span.text for span in found]
    assert all(text[span.start : span.end] == span.text for span in found)


def test_a_mask_may_be_spelled_as_another_tokenizer_spells_it(detector):
    ours = detector.detect(["Meow is the sound a [MASK] makes."])[0]
    assert detector.tokenizer.tokenize("a <mask>") != ["a", "[MASK]"]
    detector.mask_token = "<mask>"
    try:
        theirs = detector.detect(["Meow is the sound a <mask> makes."])[0]
    finally:
        detector.mask_token = detector.tokenizer.mask_token
    assert theirs == ours


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (BertModel, BertConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)),
        (DistilBertModel, DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=32)),
    ],
)
def test_the_first_layers_of_an_encoder_give_their_hidden_states(kind, settings):
    torch.manual_seed(0)
    encoder = kind(settings).eval()
    ids = torch.tensor([[2, 10, 11, 3]])
    with torch.no_grad():
        states = encoder(input_ids=ids, output_hidden_states=True).hidden_states
        keep_first_layers(encoder, None)
        assert torch.equal(encoder(input_ids=ids).last_hidden_state, states[3])
        keep_first_layers(encoder, 2)
        assert torch.equal(encoder(input_ids=ids).last_hidden_state, states[2])
    with pytest.raises(InputError, match=r"layers is 3, but .* has 2"):
        keep_first_layers(encoder, 3)
