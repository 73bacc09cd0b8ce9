"""LoRA: added for training, saved, and folded into a copy of the weights."""

import pytest
import torch

from audiobert.adapters import LoraSettings, add_lora, copy_sharing_embeddings, fold_lora, lora_parameters
from audiobert.errors import ArtefactError, InputError
from tiny_bert import bert

IDS = torch.tensor([[5, 6, 7, 8]])
SETTINGS = LoraSettings(rank=4, alpha=8, dropout=0.0, targets="all-linear")


@pytest.fixture
def model():
    return bert().requires_grad_(False)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def trained(model):
    copy = copy_sharing_embeddings(model)
    for name, parameter in add_lora(copy, SETTINGS).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return copy


def test_a_new_lora_changes_nothing_and_alone_receives_gradients(model):
    copy = copy_sharing_embeddings(model)
    matrices = add_lora(copy, SETTINGS)
    torch.testing.assert_close(logits(copy), logits(model))
    assert len(matrices) == 2 * 2 * 6  # A and B, two layers, six linear layers each
    wanting = {id(parameter) for parameter in copy.parameters() if parameter.requires_grad}
    assert wanting == {id(parameter) for parameter in matrices.values()}


def test_the_paper_adapts_query_key_and_value(model):
    names = add_lora(copy_sharing_embeddings(model), LoraSettings(rank=4, alpha=8))
    assert {name.split(".")[-3] for name in names} == {"query", "key", "value"}


def test_folding_gives_what_the_adapter_computes_and_leaves_the_plain_model_as_it_was(model):
    before = logits(model)
    adapted = trained(model)
    matrices = {name: value.float() for name, value in lora_parameters(adapted).items()}
    folded = copy_sharing_embeddings(model)
    fold_lora(folded, matrices, SETTINGS, "a file")
    torch.testing.assert_close(logits(folded), logits(adapted), rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(model), before)
    assert not torch.allclose(logits(folded), before)


def test_copies_share_the_word_embeddings_and_nothing_else(model):
    copy = copy_sharing_embeddings(model)
    shared = {id(p) for p in model.parameters()} & {id(p) for p in copy.parameters()}
    assert shared == {id(p) for p in model.get_input_embeddings().parameters()}
    assert copy.get_output_embeddings().weight is model.get_input_embeddings().weight  # still tied


def test_saved_matrices_that_do_not_fit_are_refused(model):
    state = lora_parameters(trained(model))
    first = min(state)
    with pytest.raises(ArtefactError, match="no linear layer other"):
        fold_lora(model, {first.replace("bert", "other"): state[first]}, SETTINGS, "a file")
    low = next(name for name in state if "lora_A" in name)
    with pytest.raises(ArtefactError, match="matrices"):
        fold_lora(model, state | {low: torch.zeros(4, 3)}, SETTINGS, "a file")


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(InputError, match="has no layers that match"):
        add_lora(torch.nn.Linear(2, 2), SETTINGS)
