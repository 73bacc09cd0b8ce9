"""The language model with its injection: forward, loss, and the heads of the families."""

import pytest
import torch

from audiobert.audio import Attributes
from audiobert.encoders import AudioTower, AudioTowerConfig
from audiobert.injection import SpanKnowledge
from audiobert.knowledge import KnowledgeEncoder, KnowledgeSettings, attribute_features
from audiobert.modeling import IGNORED, AudioBertForMaskedLM, head_parameters, masked_lm_head
from tiny_bert import batch, bert, model

TOWER = AudioTowerConfig(window_frames=32, max_windows=2, hidden_size=12, layers=1, heads=2)
MEASURED = Attributes(1.0, -20.0, -3.0, 440.0, 440.0, 1.0, 900.0, 0.0)


def knowledge(vectors):
    return SpanKnowledge(torch.tensor([[1, 2], [1, -1]]), vectors, torch.ones(vectors.shape[:3]))


def test_without_injection_it_is_the_language_model():
    language_model = bert()
    ids, attention, masks = batch()
    with torch.no_grad():
        ours = AudioBertForMaskedLM(language_model)(ids, attention, masks)
        plain = language_model(input_ids=ids, attention_mask=attention).logits[masks]
        ignored = AudioBertForMaskedLM(language_model)(ids, attention, masks, knowledge(torch.randn(2, 2, 1, 16)))
    torch.testing.assert_close(ours, plain)
    assert torch.equal(ignored, ours)


def test_positions_and_token_types_are_added_once():
    """Zero knowledge goes through the embeddings, no knowledge through the token ids: both give the same."""
    ours = model()
    ids, attention, masks = batch()
    with torch.no_grad():
        zero = ours(ids, attention, masks, knowledge(torch.zeros(2, 2, 1, 16)))
        torch.testing.assert_close(zero, ours(ids, attention, masks))


@pytest.mark.parametrize("kind", ["add", "replace"])
def test_knowledge_changes_the_logits_of_the_row_that_it_is_in(kind):
    ours = model(kind=kind)
    ids, attention, masks = batch()
    vectors = torch.zeros(2, 2, 1, 16)
    with torch.no_grad():
        zero = ours(ids, attention, masks, knowledge(vectors))
        vectors[1, 0] = torch.randn(16)
        heard = ours(ids, attention, masks, knowledge(vectors))
    assert (heard[1] - zero[1]).abs().max() > 1e-4
    torch.testing.assert_close(heard[0], zero[0], rtol=0, atol=1e-6)


def test_logits_are_those_of_the_masks_from_left_to_right():
    ours = model()
    ids = torch.tensor([[2, 4, 11, 4, 3], [2, 12, 4, 3, 0]])
    with torch.no_grad():
        logits = ours(ids, (ids != 0).long(), ids == 4)
        whole = ours.language_model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    torch.testing.assert_close(logits, torch.stack([whole[0, 1], whole[0, 3], whole[1, 2]]))


def test_the_loss_is_the_summed_cross_entropy():
    logits, answers = torch.randn(3, 50), torch.tensor([7, 8, IGNORED])
    loss = AudioBertForMaskedLM.loss(logits, answers)
    by_hand = -logits.log_softmax(dim=-1)[[0, 1], [7, 8]].sum()
    torch.testing.assert_close(loss, by_hand)
    assert AudioBertForMaskedLM.loss(logits, answers, label_smoothing=0.1) != loss


def test_the_head_of_a_bert_is_saved_without_its_tied_decoder():
    language_model = bert()
    names = set(head_parameters(language_model))
    assert "cls.predictions.transform.dense.weight" in names
    assert not any("decoder" in name for name in names)
    hidden = torch.randn(1, 16)
    assert masked_lm_head(language_model)(hidden).shape == (1, 50)


def test_attributes_are_on_scales_of_about_one():
    low = Attributes(5.0, -20.0, -3.0, 110.0, 112.0, 0.9, 900.0, 0.01)
    noise = Attributes(5.0, -20.0, -3.0, None, None, 0.0, 4000.0, 0.6)
    features = attribute_features([low, noise])
    assert features.shape == (2, 7)
    assert features[0, 0] == -2.0  # two octaves below 440 Hz
    assert features[1, :2].tolist() == [0.0, 0.0]
    assert abs(features).max() < 5
    assert attribute_features([]).shape == (0, 7)


@pytest.mark.parametrize("projection", ["mlp", "linear"])
def test_an_untrained_knowledge_encoder_injects_nothing_and_a_trained_one_hears(projection):
    torch.manual_seed(1)
    encoder = KnowledgeEncoder(AudioTower(TOWER), 16, KnowledgeSettings(projection=projection)).eval()
    clips = [torch.randn(40, 128).numpy(), torch.randn(10, 128).numpy()]
    assert not encoder.encode(clips, [MEASURED] * 2).any()
    torch.nn.init.normal_(encoder.outer.weight)
    vectors = encoder.encode(clips, [MEASURED] * 2)
    assert vectors.shape == (2, 16)
    assert abs(vectors[0] - vectors[1]).max() > 0


@pytest.mark.parametrize("attributes", [True, False])
def test_measured_attributes_count_if_they_are_to(attributes):
    torch.manual_seed(1)
    encoder = KnowledgeEncoder(AudioTower(TOWER), 16, KnowledgeSettings(attributes=attributes)).eval()
    torch.nn.init.normal_(encoder.outer.weight)
    clip = [torch.randn(40, 128).numpy()]
    low, high = (
        encoder.encode(clip, [Attributes(1.0, -20.0, -3.0, pitch, pitch, 1.0, 900.0, 0.0)]) for pitch in (110.0, 1760.0)
    )
    assert (abs(low - high).max() > 1e-3) == attributes


def test_an_audio_encoder_that_was_not_trained_is_not_saved():
    tower = AudioTower(TOWER)
    whole, own = (
        KnowledgeEncoder(tower, 16, KnowledgeSettings(trained_encoder=trained)).saved_state()
        for trained in (True, False)
    )
    assert any(name.startswith("tower.") for name in whole)
    assert {"outer.weight", "outer.bias"} <= own.keys()
    assert not any(name.startswith("tower.") for name in own)
