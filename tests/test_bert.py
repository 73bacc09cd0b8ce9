"""Hidden states by few calls: those of transformers' own forward to the last bit, or its forward itself."""

import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel

from audiobert.adapters import LoraSettings, add_lora, order_by_column
from audiobert.bert import hidden_states
from tiny_bert import batch, bert


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("embedded", [True, False])
def test_a_bert_gives_what_its_own_forward_gives(padded, embedded):
    encoder = bert().base_model
    ids, attention, _ = batch()
    if not padded:
        ids, attention = ids[:1], attention[:1]
    inputs = {"inputs_embeds": encoder.get_input_embeddings()(ids)} if embedded else {"input_ids": ids}
    with torch.no_grad():
        theirs = encoder(attention_mask=attention, **inputs).last_hidden_state
        calls = []
        encoder.encoder.layer[0].register_forward_hook(lambda *_: calls.append(1))
        ours = hidden_states(encoder, attention, **inputs)
    assert torch.equal(ours[attention.bool()], theirs[attention.bool()])
    assert not calls  # the layers were not called one by one


def test_a_bert_with_adapters_uses_them():
    encoder = bert().base_model
    ids, attention, _ = batch()
    with torch.no_grad():
        plain = hidden_states(encoder, attention, input_ids=ids)
        for name, matrix in add_lora(encoder, LoraSettings(rank=2)).items():
            torch.nn.init.normal_(matrix) if "lora_B" in name else None
        encoder.eval()
        adapted = hidden_states(encoder, attention, input_ids=ids)
        theirs = encoder(input_ids=ids, attention_mask=attention).last_hidden_state
    assert (adapted - plain).abs().max() > 1e-3
    assert torch.equal(adapted, theirs)


def test_a_bert_in_training_has_dropout():
    encoder = bert().base_model.train()
    ids, attention, _ = batch()
    assert not torch.equal(*(hidden_states(encoder, attention, input_ids=ids) for _ in range(2)))


def test_gradients_are_those_of_its_own_forward():
    encoder = bert().base_model
    ids, attention, _ = batch()
    weight = encoder.encoder.layer[0].attention.self.query.weight
    gradients = [
        torch.autograd.grad(hidden[attention.bool()].pow(3).sum(), weight)[0]
        for hidden in (
            hidden_states(encoder, attention, input_ids=ids),
            encoder(input_ids=ids, attention_mask=attention).last_hidden_state,
        )
    ]
    torch.testing.assert_close(*gradients)


def test_another_encoder_is_called_as_it_is():
    torch.manual_seed(0)
    encoder = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=24)).eval()
    ids, attention, _ = batch()
    with torch.no_grad():
        theirs = encoder(input_ids=ids, attention_mask=attention).last_hidden_state
        assert torch.equal(hidden_states(encoder, attention, input_ids=ids), theirs)


def test_the_order_of_weights_in_memory_changes_no_answer():
    model, ordered = bert(), bert()
    order_by_column(ordered)
    weight = ordered.bert.encoder.layer[0].intermediate.dense.weight
    assert weight.t().is_contiguous() and weight.shape == (32, 16)
    assert ordered.get_output_embeddings().weight.is_contiguous()  # it is the embedding, too
    ids, attention, _ = batch()
    with torch.no_grad():
        one, other = (some(input_ids=ids, attention_mask=attention).logits for some in (model, ordered))
    torch.testing.assert_close(one, other)
