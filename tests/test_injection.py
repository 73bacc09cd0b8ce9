"""How knowledge enters: at a span's first token, as much as the clips fit, and nothing where there is no clip."""

import math

import pytest
import torch
from pydantic import ValidationError

from audiobert.errors import InputError
from audiobert.injection import NO_CLIP, InjectionSettings, SpanKnowledge, new_injection
from audiobert.modeling import masked_lm_head
from tiny_bert import batch, model


def knowledge(vectors, scores=None, relatives=None, weights=None):
    starts = torch.tensor([[1, 2], [1, -1]])
    scores = torch.zeros(vectors.shape[:3]) if scores is None else scores
    return SpanKnowledge(starts, vectors, scores, relatives, weights)


def test_the_knowledge_goes_to_the_first_token_of_the_span_or_of_its_name():
    text = "The sound of a bell is higher than a moo, sounds of the sea, or noise."
    pieces = ["The sound of a bell", "a moo", "sounds of the sea", "noise", "sound of"]
    spans = [(text.index(piece), text.index(piece) + len(piece)) for piece in pieces]
    assert InjectionSettings().places(text, spans) == spans
    places = InjectionSettings(at="name").places(text, spans)
    assert [text[start:end] for start, end in places] == ["bell", "moo", "sea", "noise", "sound of"]
    assert [end for _, end in places] == [end for _, end in spans]


def test_without_knowledge_it_is_the_language_model():
    ours = model()
    ids, attention, masks = batch()
    with torch.no_grad():
        plain = ours.language_model(input_ids=ids, attention_mask=attention).logits[masks]
        torch.testing.assert_close(ours(ids, attention, masks), plain)
        zeros = ours(ids, attention, masks, knowledge(torch.zeros(2, 2, 1, 16)))
    torch.testing.assert_close(zeros, plain)


def test_knowledge_is_added_at_the_first_token_of_a_span_and_nowhere_else():
    words, vectors = torch.randn(2, 5, 16), torch.randn(2, 2, 1, 16)
    changed = model().injection(words, knowledge(vectors)) - words
    torch.testing.assert_close(changed[0, 1], vectors[0, 0, 0])
    torch.testing.assert_close(changed[0, 2], vectors[0, 1, 0])
    torch.testing.assert_close(changed[1, 1], vectors[1, 0, 0])
    assert (changed.abs().sum(dim=-1) > 0).sum() == 3


def test_replacing_puts_the_knowledge_in_the_tokens_place():
    words, vectors = torch.randn(2, 5, 16), torch.randn(2, 2, 1, 16)
    replaced = model(kind="replace").injection(words, knowledge(vectors))
    torch.testing.assert_close(replaced[0, 1], vectors[0, 0, 0])
    torch.testing.assert_close(replaced[0, 3], words[0, 3])


def test_clips_that_fit_better_count_more_and_the_gate_closes_on_those_that_do_not():
    injection = model(gate=True).injection
    vectors = torch.eye(16)[:2].expand(2, 2, 2, 16)  # one axis per clip, so that the pooled vector shows the weights
    scores = torch.tensor([[[0.8, 0.7], [0.3, 0.3]], [[0.05, 0.15], [NO_CLIP, NO_CLIP]]])
    pooled, gate = injection.gated(knowledge(vectors, scores))
    assert (pooled[0, 0, 0] / pooled[0, 0, 1]).item() == pytest.approx(math.e, rel=1e-4)  # a tenth better
    wanted = [1 / (1 + math.exp(-4 * (best - 0.3))) for best in (0.8, 0.3, 0.15)]
    assert gate.flatten().tolist() == pytest.approx([*wanted, 0.0], rel=1e-4)


@pytest.mark.parametrize("gate", [True, False])
def test_no_clip_at_all_injects_nothing(gate):
    injection = model(gate=gate).injection
    nothing = knowledge(torch.randn(2, 2, 3, 16), torch.full((2, 2, 3), NO_CLIP))
    assert torch.equal(injection.pool(nothing), torch.zeros(2, 2, 16))
    none = knowledge(torch.zeros(2, 2, 0, 16), torch.zeros(2, 2, 0))
    assert torch.equal(injection.pool(none), torch.zeros(2, 2, 16))
    assert injection.gated(none)[1].shape == (2, 2, 1)
    scores = torch.tensor([[[0.9], [NO_CLIP]], [[NO_CLIP], [NO_CLIP]]])
    pooled = injection.pool(knowledge(torch.ones(2, 2, 1, 16), scores)).sum(dim=-1)
    assert (pooled > 0).tolist() == [[True, False], [False, False]]  # each span for itself


def test_relatives_are_added_as_they_are_measured_from_their_centre():
    vectors, scores = torch.randn(2, 2, 3, 16), torch.rand(2, 2, 3)
    relatives, weights = torch.randn(2, 2, 16), torch.tensor([[0.9, 0.2], [0.0, 0.0]])
    injection = model(gate=True, relatives=True).injection
    torch.nn.init.normal_(injection.relatives_centre)
    own = injection.pool(knowledge(vectors, scores))
    both = injection.pool(knowledge(vectors, scores, relatives, weights))
    torch.testing.assert_close(both - own, relatives - weights.unsqueeze(-1) * injection.relatives_centre)
    without = model(gate=True).injection
    assert torch.equal(without.pool(knowledge(vectors, scores, relatives, weights)), own)


def test_gradients_reach_relatives_and_their_centre_through_the_language_model():
    ours = model(gate=True, relatives=True)
    ids, attention, masks = batch()
    relatives = torch.randn(2, 2, 16, requires_grad=True)
    ours(ids, attention, masks, knowledge(torch.randn(2, 2, 1, 16), None, relatives, torch.ones(2, 2))).sum().backward()
    assert relatives.grad.abs().sum() > 0
    assert ours.injection.relatives_centre.grad.abs().sum() > 0


def test_log_odds_weigh_the_clips_and_set_the_gate():
    injection = model(gate=True, log_odds=True).injection
    vectors = torch.eye(16)[:2].expand(2, 2, 2, 16)
    odds_of = torch.tensor([0.9, 0.5]).expand(2, 2, 2)  # 9 to 1, and 1 to 1
    pooled, gate = injection.gated(knowledge(vectors, odds_of))
    assert pooled[0, 0, :2].tolist() == pytest.approx([0.9, 0.1], rel=1e-4)
    torch.testing.assert_close(gate, torch.full((2, 2, 1), 9 * math.e / (1 + 9 * math.e)))
    assert torch.isfinite(injection.pool(knowledge(vectors, torch.ones(2, 2, 2)))).all()  # certain is not infinite
    certain, _ = injection.gated(knowledge(vectors, torch.tensor([1.0, 0.5]).expand(2, 2, 2)))
    assert certain[0, 0, 1].item() == pytest.approx(1e-4, rel=0.01)  # but 9,999 to 1


def test_clips_are_dropped_in_training_alone():
    injection = model(clip_dropout=0.25).injection
    vectors, scores = torch.eye(16)[:8].expand(2000, 1, 8, 16), torch.zeros(2000, 1, 8)
    asked = SpanKnowledge(torch.ones(2000, 1, dtype=torch.int64), vectors, scores)
    torch.testing.assert_close(injection.pool(asked)[..., :8], torch.full((2000, 1, 8), 1 / 8))
    injection.train()
    torch.manual_seed(0)
    weights = injection.pool(asked)[..., :8]
    assert (weights < 1e-3).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_a_dropped_clip_loses_eight_of_its_log_odds():
    injection = model(gate=True, clip_dropout=0.5, log_odds=True).injection.train()
    vectors, scores = torch.eye(16)[:4].expand(20, 1, 4, 16), torch.full((20, 1, 4), 0.5)
    pooled, gate = injection.gated(SpanKnowledge(torch.ones(20, 1, dtype=torch.int64), vectors, scores))
    ratios = pooled[..., :4].log() - pooled[..., :4].log().amax(dim=-1, keepdim=True)
    assert ratios.round(decimals=3).unique().tolist() == pytest.approx([-8.0, 0.0], abs=1e-3)
    torch.testing.assert_close(gate, torch.full((20, 1, 1), math.e / (1 + math.e)))  # that of all clips


def test_two_spans_with_the_same_first_token_add_both():
    words, vectors = torch.zeros(1, 3, 16), torch.randn(1, 2, 1, 16)
    both = SpanKnowledge(torch.tensor([[1, 1]]), vectors, torch.zeros(1, 2, 1))
    torch.testing.assert_close(model().injection(words, both)[0, 1], vectors.sum(dim=(0, 1, 2)))


def test_settings_are_the_papers_unless_others_are_given():
    assert not any(model().injection.get_parameter(name).requires_grad for name in ("gate_slope", "gate_offset"))
    plain = InjectionSettings()
    assert (plain.kind, plain.gate, plain.log_odds) == ("add", True, False)
    assert (plain.clip_dropout, plain.relatives_dropout) == (0.0, 0.0)
    for wrong in (-0.1, 1.0):
        for name in ("clip_dropout", "relatives_dropout"):
            with pytest.raises(ValidationError, match=name):
                InjectionSettings.model_validate({name: wrong})
    InjectionSettings(clip_dropout=0.01, relatives_dropout=0.01)
    assert new_injection(plain, 16).relatives_centre is None


def test_a_span_may_begin_at_the_first_token():
    words, vectors = torch.randn(1, 3, 16), torch.randn(1, 1, 1, 16)
    changed = model().injection(words, SpanKnowledge(torch.tensor([[0]]), vectors, torch.zeros(1, 1, 1))) - words
    torch.testing.assert_close(changed[0, 0], vectors[0, 0, 0])


def test_padding_among_the_clips_does_not_count():
    injection = model(gate=True).injection
    vectors = torch.randn(2, 2, 2, 16)
    alone = injection.pool(knowledge(vectors[:, :, :1], torch.full((2, 2, 1), 0.8)))
    padded = injection.pool(knowledge(vectors, torch.tensor([0.8, NO_CLIP]).expand(2, 2, 2)))
    torch.testing.assert_close(alone, padded)


def test_gradients_reach_the_knowledge_and_the_gate():
    ours = model(gate=True)
    ids, attention, masks = batch()
    vectors = torch.randn(2, 2, 2, 16, requires_grad=True)
    ours(ids, attention, masks, knowledge(vectors, torch.rand(2, 2, 2))).sum().backward()
    assert vectors.grad.abs().sum() > 0
    assert ours.injection.gate_slope.grad.abs() > 0


def test_the_head_of_an_unknown_model_is_refused():
    with pytest.raises(InputError, match="Linear has no masked-LM head"):
        masked_lm_head(torch.nn.Linear(2, 2))
