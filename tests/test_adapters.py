import threading

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from audiobert.adapters import ALL_LINEAR, AUDIO, LANGUAGE, QUERY_KEY_VALUE, Adapters, LoraSettings
from audiobert.errors import ArtefactError

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    return BertForMaskedLM(config).eval().requires_grad_(False)


def trained(adapters, name):
    for key, parameter in adapters.parameters(name).items():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.3)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_switched_off_is_bit_for_bit_the_model_before(model):
    before = logits(model)
    adapters = Adapters(model)
    adapters.add(LANGUAGE, LoraSettings(4, 8, 0.0, ALL_LINEAR))
    adapters.add(AUDIO, LoraSettings(4, 8, 0.0, QUERY_KEY_VALUE))
    trained(adapters, LANGUAGE)
    trained(adapters, AUDIO)
    assert torch.equal(logits(model), before)
    with adapters.on(LANGUAGE):
        language = logits(model)
        with adapters.on(LANGUAGE, AUDIO):
            both = logits(model)
        assert torch.equal(logits(model), language)
    assert torch.equal(logits(model), before)
    assert not torch.allclose(language, before)
    assert not torch.allclose(both, language)


def test_only_the_trained_adapter_receives_gradients(model):
    adapters = Adapters(model)
    adapters.add(LANGUAGE, LoraSettings(4, 8, 0.0, ALL_LINEAR))
    adapters.add(AUDIO, LoraSettings(4, 8, 0.0, QUERY_KEY_VALUE))
    adapters.set(LANGUAGE, AUDIO, train=AUDIO)
    wanting = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert wanting
    assert all(f".{AUDIO}." in name for name in wanting)


def test_an_adapter_in_training_stays_so_when_it_is_off_for_a_moment(model):
    adapters = Adapters(model)
    adapters.add(AUDIO, LoraSettings(4, 8, 0.0, QUERY_KEY_VALUE))
    adapters.set(AUDIO, train=AUDIO)
    with adapters.on():
        pass
    assert all(parameter.requires_grad for parameter in adapters.parameters(AUDIO).values())


def test_target_modules_are_those_that_are_named(model):
    adapters = Adapters(model)
    adapters.add(LANGUAGE, LoraSettings(4, 8, 0.0, ALL_LINEAR))
    adapters.add(AUDIO, LoraSettings(4, 8, 0.0, QUERY_KEY_VALUE))
    assert len(adapters.parameters(LANGUAGE)) == 2 * 2 * 6  # A and B, two layers, six linear layers each
    assert len(adapters.parameters(AUDIO)) == 2 * 2 * 3
    assert not any("cls." in name for name in adapters.parameters(LANGUAGE))


def test_saved_weights_come_back(model):
    adapters = Adapters(model)
    adapters.add(AUDIO, LoraSettings(4, 8, 0.0, QUERY_KEY_VALUE))
    trained(adapters, AUDIO)
    state = adapters.state(AUDIO)
    for parameter in adapters.parameters(AUDIO).values():
        torch.nn.init.zeros_(parameter)
    adapters.load(AUDIO, state)
    assert all(torch.equal(p.half(), state[k]) for k, p in adapters.parameters(AUDIO).items())
    with pytest.raises(ArtefactError, match="does not fit this backbone"):
        adapters.load(AUDIO, {"other": torch.zeros(1)})
    name = min(state)
    with pytest.raises(ArtefactError, match=r"has shape \(1,\)"):
        adapters.load(AUDIO, state | {name: torch.zeros(1)})


def test_threads_do_not_see_each_others_adapters(model):
    adapters = Adapters(model)
    adapters.add(AUDIO, LoraSettings(4, 8, 0.0, QUERY_KEY_VALUE))
    trained(adapters, AUDIO)
    plain = logits(model)
    with adapters.on(AUDIO):
        adapted = logits(model)
    wrong = []

    def work(names, wanted):
        for _ in range(50):
            with adapters.on(*names):
                if not torch.equal(logits(model), wanted):
                    wrong.append(names)

    threads = [threading.Thread(target=work, args=a) for a in (((), plain), ((AUDIO,), adapted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
