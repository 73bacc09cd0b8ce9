import pytest
import torch
from audiobert.text_features import TextFeatures, pad_ngrams, text_ngrams
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from audiobert.audio import Attributes
from audiobert.encoders import AudioTower, AudioTowerConfig
from audiobert.errors import InputError
from audiobert.modeling import (
    AudioBertForMaskedLM,
    Injection,
    InjectionSettings,
    KnowledgeEncoder,
    attribute_features,
    masked_lm_head,
)

TOWER = AudioTowerConfig(window_frames=32, max_windows=2, hidden_size=12, layers=1, heads=2)


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    return BertForMaskedLM(config).eval()


def batch():
    ids = torch.tensor([[2, 10, 11, 4, 3], [2, 12, 4, 3, 0]])
    return ids, (ids != 0).long(), ids == 4


def injection(knowledge=None, clips=1):
    starts, ends = torch.tensor([[1, 2], [1, -1]]), torch.tensor([[2, 3], [2, -1]])
    if knowledge is None:
        return Injection(starts, ends)
    return Injection(starts, ends, knowledge, torch.zeros(2, 2, clips))


def settings(**changes):
    return InjectionSettings(**({"clips_per_span": 1, "gate": False, "comparison": False} | changes))


def test_without_injection_it_is_the_language_model():
    language_model = bert()
    ids, attention, masks = batch()
    with torch.no_grad():
        ours = AudioBertForMaskedLM(language_model, settings())(ids, attention, masks)
        plain = language_model(input_ids=ids, attention_mask=attention).logits[masks]
    torch.testing.assert_close(ours, plain)


def test_nothing_injected_equals_nothing_changed():
    model = AudioBertForMaskedLM(bert(), settings())
    ids, attention, masks = batch()
    with torch.no_grad():
        torch.testing.assert_close(
            model(ids, attention, masks, injection(torch.zeros(2, 2, 1, 16))), model(ids, attention, masks)
        )


def test_knowledge_is_added_at_the_first_token_of_a_span_and_nowhere_else():
    model = AudioBertForMaskedLM(bert(), settings())
    ids, _, _ = batch()
    knowledge = torch.randn(2, 2, 1, 16)
    words = model.language_model.get_input_embeddings()(ids)
    changed = model.embeddings(ids, injection(knowledge)) - words
    torch.testing.assert_close(changed[0, 1], knowledge[0, 0, 0])
    torch.testing.assert_close(changed[0, 2], knowledge[0, 1, 0])
    torch.testing.assert_close(changed[1, 1], knowledge[1, 0, 0])
    assert (changed.abs().sum(dim=-1) > 0).sum() == 3


def test_replacing_puts_the_knowledge_in_the_tokens_place():
    model = AudioBertForMaskedLM(bert(), settings(mode="replace"))
    ids, _, _ = batch()
    knowledge = torch.randn(2, 2, 1, 16)
    embeddings = model.embeddings(ids, injection(knowledge))
    torch.testing.assert_close(embeddings[0, 1], knowledge[0, 0, 0])
    torch.testing.assert_close(embeddings[0, 3], model.language_model.get_input_embeddings()(ids)[0, 3])


def test_clips_that_fit_better_count_more_and_the_gate_closes_on_those_that_do_not():
    model = AudioBertForMaskedLM(bert(), settings(clips_per_span=2, gate=True))
    knowledge = torch.stack([torch.ones(2, 2, 16), -torch.ones(2, 2, 16)], dim=2)
    good = Injection(*vars(injection()).values())
    good.knowledge, good.scores = knowledge, torch.tensor([0.9, 0.1]).expand(2, 2, 2)
    poor = Injection(good.starts, good.ends, knowledge, torch.tensor([-0.9, -1.0]).expand(2, 2, 2))
    assert model.pooled_knowledge(good).mean() > 0.9 * torch.sigmoid(torch.tensor(4.0 * 0.6))
    assert model.pooled_knowledge(poor).abs().max() < 0.05


def words():
    """What two spans of one row are scored by, of width 16."""
    torch.manual_seed(1)
    return TextFeatures(torch.randn(1, 2, 16), pad_ngrams([text_ngrams("a flute"), text_ngrams("a tuba")])[None])


def turned(own):
    return TextFeatures(own.sentence_vectors.flip(1), own.ngrams.flip(1))


def scorer():
    model = AudioBertForMaskedLM(bert(), settings(comparison=True, comparison_hears=True)).eval()
    torch.nn.init.normal_(model.span_scorer.wide.weight)
    return model


def test_the_comparison_turns_round_with_the_spans():
    model, knowledge = scorer(), torch.randn(1, 2, 1, 16)
    place, mask = torch.tensor([[1, 3]]), torch.tensor([[False, False, True, False, False]])
    there = Injection(place, place + 1, knowledge, torch.zeros(1, 2, 1), words())
    back = Injection(place, place + 1, knowledge.flip(1), torch.zeros(1, 2, 1), turned(words()))
    assert model.compared(there, mask).abs() > 1e-3
    torch.testing.assert_close(model.compared(there, mask), -model.compared(back, mask))
    deaf = Injection(place, place + 1, words=words())
    assert not torch.allclose(model.compared(deaf, mask), model.compared(there, mask))  # what is heard counts


def test_a_comparison_is_between_what_stands_before_the_mask_and_what_stands_behind_it():
    model, mask = scorer(), torch.tensor([[False, False, False, True, False, False, False]])

    def difference(*starts):
        starts = torch.tensor([starts])
        vectors = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(2))
        grams = pad_ngrams([text_ngrams(name) for name in ("flute", "tuba", "rain")])[None]
        own = TextFeatures(vectors, grams)
        score = model.span_scores(own, None).mean(dim=-1)[0]
        return model.compared(Injection(starts, starts + 1, words=own), mask).item(), score.tolist()

    got, (a, b, c) = difference(1, 2, 5)
    assert got == pytest.approx((a + b) / 2 - c, abs=1e-6)
    assert difference(1, -1, -1)[0] == difference(4, -1, -1)[0] == 0.0
    assert difference(4, 5, -1)[0] == pytest.approx(a - b, abs=1e-6)  # both behind the mask
    assert difference(0, 1, 2)[0] == pytest.approx(a - (b + c) / 2, abs=1e-6)


def test_the_difference_moves_the_two_words_apart_by_itself_at_first():
    model = scorer()
    ids, attention, masks = batch()
    ids, attention, masks = ids[:1], attention[:1], masks[:1]
    spans = Injection(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]), words=words())
    with torch.no_grad():
        before = model(ids, attention, masks, spans)
        model.point(7, 8)
        moved = model(ids, attention, masks, spans) - before
        difference = model.compared(spans, masks)
    torch.testing.assert_close(moved[0, 7] - moved[0, 8], difference[0])
    torch.testing.assert_close(before, model(ids, attention, masks).detach())  # no direction, no change


def test_the_language_models_loss_leaves_the_span_scorer_alone():
    model = scorer()
    model.point(7, 8)
    ids, attention, masks = batch()
    spans = Injection(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]), words=words())
    model(ids[:1], attention[:1], masks[:1], spans).sum().backward()
    assert all(parameter.grad is None for parameter in model.span_scorer.parameters())
    assert model.comparison_direction.grad.abs().sum() > 0


def test_gradients_reach_the_knowledge():
    model = AudioBertForMaskedLM(bert(), settings(clips_per_span=2, gate=True))
    knowledge = torch.randn(2, 2, 2, 16, requires_grad=True)
    ids, attention, masks = batch()
    model(ids, attention, masks, injection(knowledge, clips=2)).sum().backward()
    assert (knowledge.grad.abs().sum(dim=(-1, -2)) > 0).tolist() == [[True, True], [True, False]]


def test_attributes_are_on_scales_of_about_one():
    low = Attributes(5.0, -20.0, -3.0, 110.0, 112.0, 0.9, 900.0, 0.01)
    noise = Attributes(5.0, -20.0, -3.0, None, None, 0.0, 4000.0, 0.6)
    features = attribute_features([low, noise])
    assert features.shape == (2, 7)
    assert features[0, 0] == -2.0  # two octaves below 440 Hz
    assert features[1, :2].tolist() == [0.0, 0.0]
    assert abs(features).max() < 5
    assert attribute_features([]).shape == (0, 7)


def test_an_untrained_knowledge_encoder_injects_nothing_and_a_trained_one_hears():
    encoder = KnowledgeEncoder(AudioTower(TOWER), 16)
    torch.manual_seed(1)
    clips = [torch.randn(40, 128).numpy(), torch.randn(10, 128).numpy()]
    attributes = [Attributes(1.0, -20.0, -3.0, 440.0, 440.0, 1.0, 900.0, 0.0)] * 2
    assert not encoder.encode(clips, attributes).any()
    nn.init.normal_(encoder.outer.weight)
    vectors = encoder.encode(clips, attributes)
    assert vectors.shape == (2, 16)
    assert abs(vectors[0] - vectors[1]).max() > 0


def test_a_knowledge_vector_stays_shorter_than_it_may_be():
    torch.manual_seed(0)
    tower = AudioTower(TOWER)
    free, bounded = (KnowledgeEncoder(tower, 16, longest=longest) for longest in (None, 0.5))
    torch.nn.init.normal_(free.outer.weight)
    bounded.load_state_dict(free.state_dict())
    features, attributes = torch.randn(4, tower.config.hidden_size), torch.randn(4, 7)
    with torch.no_grad():
        long, short = free.project(features, attributes), bounded.project(features, attributes)
        assert (long.norm(dim=-1) > 1.0).all()
        assert (short.norm(dim=-1) < 0.5).all() and (short.norm(dim=-1) > 0.4).all()
        torch.testing.assert_close(torch.nn.functional.cosine_similarity(long, short), torch.ones(4))
        free.outer.weight *= 1e-3
        bounded.outer.weight *= 1e-3
        free.outer.bias *= 1e-3
        torch.testing.assert_close(
            bounded.project(features, attributes), free.project(features, attributes), rtol=1e-3, atol=1e-6
        )


def test_an_unknown_head_is_named():
    with pytest.raises(InputError, match="Linear has no masked-LM head"):
        masked_lm_head(nn.Linear(2, 2))
